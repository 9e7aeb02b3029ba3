// Programs as a user runs them, with a bound on their time.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <string>
#include <thread>

namespace kvfs::fs::test {

struct Outcome {
  int code = -1;       // exit status; 128 + signal; -1: it took too long and was killed
  std::string output;  // stdout and stderr
};

// A program under way; killed when it goes out of scope.
class Program {
 public:
  Program(const std::string& command, const std::filesystem::path& directory);
  ~Program();
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  void signal(int number) const;
  std::string so_far();  // its output until now
  Outcome wait(std::chrono::milliseconds bound = std::chrono::seconds(60));

 private:
  bool ended(bool block);

  pid_t process_ = -1;
  int output_fd_ = -1;
  std::string output_;
  int code_ = -1;
  bool reaped_ = false;
};

Outcome run(const std::string& command, const std::filesystem::path& directory);

// Until it holds, at most that long.
template <class Condition>
bool eventually(Condition condition, std::chrono::milliseconds bound = std::chrono::seconds(20)) {
  const auto end = std::chrono::steady_clock::now() + bound;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

std::string read_file(const std::filesystem::path& path);
// 0, or the errno of the first call that failed: open, write or close.
int write_file(const std::filesystem::path& path, const std::string& text, int flags);
int write_file(const std::filesystem::path& path, const std::string& text);

}  // namespace kvfs::fs::test
