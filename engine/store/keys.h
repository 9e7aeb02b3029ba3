// Keys of the store's tables: numbers are big-endian, so that byte order is numeric order.
#pragma once

#include <string_view>

#include "codec/base/bytes.h"
#include "engine/store/records.h"

namespace kvfs::store {

class Key {
 public:
  template <class Tag>
  Key& id(NumberId<Tag> value) {
    for (int shift = 56; shift >= 0; shift -= 8) {
      bytes_.push_back(static_cast<std::uint8_t>(value.value >> shift));
    }
    return *this;
  }
  Key& area(FileArea area) {
    bytes_.push_back(static_cast<std::uint8_t>(area));
    return *this;
  }
  Key& name(std::string_view name) {
    bytes_.insert(bytes_.end(), name.begin(), name.end());
    return *this;
  }
  operator ByteSpan() const { return bytes_; }

 private:
  Bytes bytes_;
};

template <class Tag>
Key key_of(NumberId<Tag> id) {
  return Key().id(id);
}

// The number at the key's front; the key must be that long.
template <class Id>
Id id_from_key(ByteSpan key, std::size_t offset = 0) {
  Id id;
  for (std::size_t i = 0; i < 8; ++i) id.value = id.value << 8 | key[offset + i];
  return id;
}

inline bool starts_with(ByteSpan key, ByteSpan prefix) {
  return as_text(key).starts_with(as_text(prefix));
}

}  // namespace kvfs::store
