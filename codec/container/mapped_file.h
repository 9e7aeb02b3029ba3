// A regular file in memory, read-only and shared through the page cache. Immutable, any thread; the
// bytes live as long as the object. Errors: kNotFound, kPermission, kInvalid (no regular file),
// kCorrupt (empty), kIo.
#pragma once

#include <filesystem>

#include "codec/base/bytes.h"
#include "codec/base/result.h"

namespace kvfs::container {

class MappedFile {
 public:
  // what: names the file in errors, "model file /path".
  static Result<MappedFile> open(const std::filesystem::path& path, const std::string& what);

  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  ByteSpan bytes() const { return bytes_; }
  // Takes them out of this process's memory; each comes back from the page cache when it is read.
  void release_pages() const;

 private:
  explicit MappedFile(ByteSpan bytes) : bytes_(bytes) {}
  ByteSpan bytes_;
};

}  // namespace kvfs::container
