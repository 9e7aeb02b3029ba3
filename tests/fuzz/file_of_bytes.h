// A fuzzer's input as a file, which the readers of models want: written anew for each input, in
// memory, gone at the end of the process.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>

namespace kvfs::fuzz {

// A folder of this process.
inline const std::filesystem::path& folder() {
  struct Folder {
    std::filesystem::path path = "/dev/shm/kvfs-fuzz-" + std::to_string(::getpid());
    Folder() { std::filesystem::create_directories(path); }
    ~Folder() { std::filesystem::remove_all(path); }
  };
  static const Folder made;
  return made.path;
}

// `zeros` more bytes follow, as a hole: weights that no input need carry.
inline void write_file(const std::string& name, std::string_view bytes, std::uint64_t zeros = 0) {
  static constexpr std::uint64_t kMost = std::uint64_t{1} << 36;
  const int file =
      ::open((folder() / name).c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  const auto size = static_cast<off_t>(bytes.size() + std::min(zeros, kMost));
  if (file < 0 || ::write(file, bytes.data(), bytes.size()) != std::ssize(bytes) ||
      ::ftruncate(file, size) != 0) {
    std::abort();
  }
  ::close(file);
}

}  // namespace kvfs::fuzz
