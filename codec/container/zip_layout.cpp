#include "codec/container/zip_layout.h"

#include <zlib.h>

namespace kvfs::container {
namespace {

constexpr std::uint64_t kAlignment = 64;
constexpr std::uint32_t kIn64 = 0xffffffff;  // "see the ZIP64 field"
constexpr std::uint16_t kPlain = 20;         // versions needed: 2.0
constexpr std::uint16_t kZip64 = 45;         // 4.5
constexpr std::uint16_t kUtf8Names = 1 << 11;
constexpr std::uint16_t kDescriptorBehind = 1 << 3;
constexpr std::uint16_t kStored = 0;
constexpr std::uint32_t kOldestTime = ((1 << 5) | 1) << 16;  // 1 January 1980, midnight

bool needs_64(std::uint64_t number) { return number >= kIn64; }
std::uint32_t narrow(std::uint64_t number) {
  return needs_64(number) ? kIn64 : static_cast<std::uint32_t>(number);
}

}  // namespace

std::uint32_t ZipLayout::crc_of(ByteSpan bytes, std::uint32_t before) {
  if (bytes.empty()) return before;  // zlib takes no data for a wish to begin
  return static_cast<std::uint32_t>(crc32_z(before, bytes.data(), bytes.size()));
}

Bytes ZipLayout::header(const std::string& name, std::uint64_t size,
                        std::optional<std::uint32_t> crc, std::uint64_t offset) {
  const std::uint16_t flags = crc ? kUtf8Names : kUtf8Names | kDescriptorBehind;
  entries_.push_back({name, size, crc.value_or(0), flags, offset});
  ByteWriter extra;
  if (needs_64(size)) {
    extra.number(std::uint16_t{1});
    extra.number(std::uint16_t{16});
    extra.number(size);
    extra.number(size);
  }
  constexpr std::uint64_t kFixed = 30;
  const std::uint64_t before = offset + kFixed + name.size() + extra.bytes().size() + 4;
  const std::uint64_t padding = (kAlignment - before % kAlignment) % kAlignment;
  extra.raw(as_bytes("FB"));
  extra.number(static_cast<std::uint16_t>(padding));
  extra.raw(Bytes(padding));

  ByteWriter out;
  out.raw(as_bytes("PK\x03\x04"));
  out.number(needs_64(size) ? kZip64 : kPlain);
  out.number(flags);
  out.number(kStored);
  out.number(kOldestTime);
  out.number(crc.value_or(0));
  out.number(narrow(size));
  out.number(narrow(size));
  out.number(static_cast<std::uint16_t>(name.size()));
  out.number(static_cast<std::uint16_t>(extra.bytes().size()));
  out.raw(as_bytes(name));
  out.raw(extra.bytes());
  return out.take();
}

Bytes ZipLayout::descriptor(std::size_t entry) const {
  const Entry& facts = entries_[entry];
  ByteWriter out;
  out.raw(as_bytes("PK\x07\x08"));
  out.number(facts.crc);
  for (int i = 0; i < 2; ++i) {
    if (needs_64(facts.size)) {
      out.number(facts.size);
    } else {
      out.number(static_cast<std::uint32_t>(facts.size));
    }
  }
  return out.take();
}

Bytes ZipLayout::directory(std::uint64_t offset) const {
  ByteWriter out;
  for (const Entry& entry : entries_) {
    ByteWriter extra;
    if (needs_64(entry.size)) {
      extra.number(entry.size);
      extra.number(entry.size);
    }
    if (needs_64(entry.offset)) extra.number(entry.offset);
    const std::size_t wide = extra.bytes().size();
    out.raw(as_bytes("PK\x01\x02"));
    out.number(kZip64);
    out.number(wide != 0 ? kZip64 : kPlain);
    out.number(entry.flags);
    out.number(kStored);
    out.number(kOldestTime);
    out.number(entry.crc);
    out.number(narrow(entry.size));
    out.number(narrow(entry.size));
    out.number(static_cast<std::uint16_t>(entry.name.size()));
    out.number(static_cast<std::uint16_t>(wide != 0 ? wide + 4 : 0));
    out.raw(Bytes(10));  // no comment, first disk, no attributes
    out.number(narrow(entry.offset));
    out.raw(as_bytes(entry.name));
    if (wide == 0) continue;
    out.number(std::uint16_t{1});
    out.number(static_cast<std::uint16_t>(wide));
    out.raw(extra.bytes());
  }
  const std::uint64_t size = out.bytes().size();
  const std::uint64_t count = entries_.size();
  if (needs_64(offset) || count >= 0xffff) {
    out.raw(as_bytes("PK\x06\x06"));
    out.number(std::uint64_t{44});
    out.number(kZip64);
    out.number(kZip64);
    out.raw(Bytes(8));  // first disk
    out.number(count);
    out.number(count);
    out.number(size);
    out.number(offset);
    out.raw(as_bytes("PK\x06\x07"));
    out.number(std::uint32_t{0});
    out.number(offset + size);
    out.number(std::uint32_t{1});
  }
  const auto short_count = static_cast<std::uint16_t>(count >= 0xffff ? 0xffff : count);
  out.raw(as_bytes("PK\x05\x06"));
  out.number(std::uint32_t{0});
  out.number(short_count);
  out.number(short_count);
  out.number(narrow(size));
  out.number(narrow(offset));
  out.number(std::uint16_t{0});
  return out.take();
}

}  // namespace kvfs::container
