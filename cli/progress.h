// How far a file has gone, on a terminal's stderr; nothing in a pipe.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace kvfs::cli {

class Progress {
 public:
  explicit Progress(std::string what);
  ~Progress();  // clears its line
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void show(std::uint64_t done, std::uint64_t size);

 private:
  const std::string what_;
  const bool terminal_;
  std::chrono::steady_clock::time_point next_;
  bool shown_ = false;
};

}  // namespace kvfs::cli
