// A zip file in memory, as torch.save and numpy.savez write them: its entries by name, stored ones
// as views into the file, deflated ones inflated (libzip). CRCs of stored entries are not checked:
// torch does neither, and its own writer leaves them zero on request. Keeps what it inflated; the
// file's bytes must outlive it. One thread at a time. Errors: kCorrupt, kNotFound (no such entry),
// kTooLarge (a size that its bytes cannot inflate to).
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "codec/base/bytes.h"
#include "codec/base/result.h"

struct zip;

namespace kvfs::container {

class ZipFile {
 public:
  static bool is_zip(ByteSpan file);
  static Result<ZipFile> open(ByteSpan file);
  ZipFile(ZipFile&& other) noexcept;
  ~ZipFile();

  struct Entry {
    std::uint64_t index = 0;
    std::uint64_t size = 0;
    std::uint64_t stored_size = 0;
    bool is_stored = true;
    bool is_encrypted = false;
  };
  const std::map<std::string, Entry, std::less<>>& entries() const { return entries_; }
  Result<ByteSpan> bytes_of(std::string_view name);

 private:
  struct Source;  // what libzip reads the file by
  struct Closer {
    void operator()(zip* archive) const;
  };
  ZipFile();
  Result<ByteSpan> stored(const Entry& entry, const std::string& what);
  Result<ByteSpan> inflated(const Entry& entry, const std::string& what);

  std::unique_ptr<Source> source_;  // archive_ uses it until it closes
  std::unique_ptr<zip, Closer> archive_;
  std::map<std::string, Entry, std::less<>> entries_;
  std::map<std::string, ByteSpan, std::less<>> known_;  // what bytes_of has given
  std::deque<Bytes> inflated_;
  std::uint64_t inflated_bytes_ = 0;
};

}  // namespace kvfs::container
