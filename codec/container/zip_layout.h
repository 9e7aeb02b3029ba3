// The bytes of a zip file around entries that are stored and not read (PKWARE's APPNOTE 6.3, 4.3
// and 4.5.3): a header before each entry's data, which it aligns, and the directory after all.
// Sizes and offsets above 4 GiB go to ZIP64 fields. One thread; cannot fail.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "codec/base/bytes.h"

namespace kvfs::container {

class ZipLayout {
 public:
  static std::uint32_t crc_of(ByteSpan bytes, std::uint32_t before = 0);

  // What comes at `offset` of the file, before the entry's `size` bytes; padded so that these begin
  // at a multiple of 64, in an extra field "FB" as torch has it.
  // Without a CRC the entry's descriptor comes behind its bytes.
  Bytes header(const std::string& name, std::uint64_t size, std::optional<std::uint32_t> crc,
               std::uint64_t offset);
  std::size_t entries() const { return entries_.size(); }
  void set_crc(std::size_t entry, std::uint32_t crc) { entries_[entry].crc = crc; }
  Bytes descriptor(std::size_t entry) const;
  // What comes at `offset`, after the last entry: directory and end records.
  Bytes directory(std::uint64_t offset) const;

 private:
  struct Entry {
    std::string name;
    std::uint64_t size = 0;
    std::uint32_t crc = 0;
    std::uint16_t flags = 0;
    std::uint64_t offset = 0;
  };
  std::vector<Entry> entries_;
};

}  // namespace kvfs::container
