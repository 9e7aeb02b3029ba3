// Bodies too large for memory: a file that was sent, kept without a name, and one to be sent.
// One thread at a time each.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>

#include "codec/base/bytes.h"
#include "codec/base/result.h"

namespace kvfs::daemon::http {

class Upload {
 public:
  // kNoSpace, kIo: no file can be had in that directory.
  static Result<std::shared_ptr<Upload>> begin(const std::filesystem::path& directory);
  ~Upload();
  Upload(const Upload&) = delete;
  Upload& operator=(const Upload&) = delete;

  Status append(ByteSpan bytes);
  // Where it can be opened while this object lives.
  std::filesystem::path path() const;

 private:
  explicit Upload(int fd) : fd_(fd) {}
  const int fd_;
};

struct Download {
  std::uint64_t size = 0;
  std::function<Result<std::size_t>(std::uint64_t offset, MutableByteSpan out)> read;
};

}  // namespace kvfs::daemon::http
