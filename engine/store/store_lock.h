// One daemon a store: a locked file that names the holder's process. The lock goes with the
// process, however it ends.
#pragma once

#include <filesystem>

#include "codec/base/result.h"

namespace kvfs::store {

class StoreLock {
 public:
  // Creates DIRECTORY/kvfsd.lock where missing; kBusy, with the holder's pid, when another process has
  // it.
  static Result<StoreLock> take(const std::filesystem::path& directory);
  StoreLock(StoreLock&& other) noexcept;
  StoreLock& operator=(StoreLock&&) = delete;
  ~StoreLock();

 private:
  explicit StoreLock(int fd) : fd_(fd) {}
  int fd_;
};

}  // namespace kvfs::store
