// Byte spans, and little-endian writing and checked reading of on-disk structs.
//
// ByteReader never reads past its span: the first short read makes it fail for good, so a parser
// reads a whole struct and asks ok() once. Not thread safe; owns nothing.
#pragma once

#include <bit>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "codec/base/ids.h"

namespace kvfs {

static_assert(std::endian::native == std::endian::little, "on-disk structs are little-endian");

using ByteSpan = std::span<const std::uint8_t>;
using MutableByteSpan = std::span<std::uint8_t>;
using Bytes = std::vector<std::uint8_t>;

inline ByteSpan as_bytes(std::string_view text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}
inline std::string_view as_text(ByteSpan bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

class ByteWriter {
 public:
  template <class T>
    requires std::integral<T> || std::floating_point<T>
  void number(T value) {
    const auto* p = reinterpret_cast<const std::uint8_t*>(&value);
    out_.insert(out_.end(), p, p + sizeof value);
  }
  void raw(ByteSpan bytes) { out_.insert(out_.end(), bytes.begin(), bytes.end()); }
  void text(std::string_view value) {  // u32 length, bytes
    number(static_cast<std::uint32_t>(value.size()));
    raw(as_bytes(value));
  }
  template <class Tag>
  void id(NumberId<Tag> value) { number(value.value); }
  template <class Tag>
  void digest(const Digest128<Tag>& value) { raw(value.bytes); }

  const Bytes& bytes() const { return out_; }
  Bytes take() { return std::move(out_); }

 private:
  Bytes out_;
};

class ByteReader {
 public:
  explicit ByteReader(ByteSpan bytes) : rest_(bytes) {}

  template <class T>
    requires std::integral<T> || std::floating_point<T>
  T number() {
    T value{};
    if (const ByteSpan bytes = raw(sizeof value); !bytes.empty()) {
      std::memcpy(&value, bytes.data(), sizeof value);
    }
    return value;
  }
  // Empty when fewer than n bytes are left.
  ByteSpan raw(std::size_t n) {
    if (n > rest_.size()) {
      ok_ = false;
      rest_ = {};
      return {};
    }
    const ByteSpan out = rest_.first(n);
    rest_ = rest_.subspan(n);
    return out;
  }
  std::string text() { return std::string(as_text(raw(number<std::uint32_t>()))); }
  template <class Id>
  Id id() { return Id{number<std::uint64_t>()}; }
  template <class D>
  D digest() {
    D value{};
    if (const ByteSpan bytes = raw(value.bytes.size()); !bytes.empty()) {
      std::memcpy(value.bytes.data(), bytes.data(), value.bytes.size());
    }
    return value;
  }

  bool ok() const { return ok_; }
  bool at_end() const { return rest_.empty(); }
  std::size_t left() const { return rest_.size(); }

 private:
  ByteSpan rest_;
  bool ok_ = true;
};

}  // namespace kvfs
