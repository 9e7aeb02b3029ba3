// Pieces that several record layouts share. Used by layouts.cpp and block_layout.cpp alone.
#pragma once

#include <string>
#include <utility>

#include "engine/store/records.h"

namespace kvfs::store {

inline tl::unexpected<Error> damaged(const std::string& what) {
  return fail(ErrorCode::kCorrupt, what, "its record does not parse",
              "run kvfsd --check and restore the store from a backup");
}

inline Status check_layout(ByteReader& in, std::uint8_t known, const std::string& what) {
  const auto layout = in.number<std::uint8_t>();
  if (!in.ok() || layout == 0) return damaged(what);
  if (layout > known) {
    return fail(
        ErrorCode::kUnsupported, what,
        "its record has layout " + std::to_string(layout) + ", newer than " + std::to_string(known),
        "use the newer kvfsd that wrote it");
  }
  return {};
}

template <class T>
Result<T> finish(const ByteReader& in, T record, const std::string& what) {
  if (!in.ok() || !in.at_end()) return damaged(what);
  return record;
}

// Makes the reader fail for good: what was read makes no sense.
inline void spoil(ByteReader& in) { in.raw(in.left() + 1); }

// A u32 count of items that take at least item_bytes each; 0 when they cannot all be there.
inline std::size_t take_count(ByteReader& in, std::size_t item_bytes) {
  const std::size_t count = in.number<std::uint32_t>();
  if (count * item_bytes <= in.left()) return count;
  spoil(in);
  return 0;
}

template <class E>
E take_enum(ByteReader& in, E last) {
  const auto value = in.number<std::uint8_t>();
  if (value > static_cast<std::uint8_t>(last)) spoil(in);
  return static_cast<E>(value);
}

inline DType take_dtype(ByteReader& in) {
  const auto dtype = static_cast<DType>(in.number<std::uint8_t>());
  if (size_of(dtype) == 0) spoil(in);
  return dtype;
}

inline void put_shape(ByteWriter& out, const chunk::ShapeClass& shape) {
  out.number(static_cast<std::uint8_t>(shape.dtype));
  out.number(shape.heads);
  out.number(shape.positions);
  out.number(shape.width);
}

inline chunk::ShapeClass take_shape(ByteReader& in) {
  chunk::ShapeClass shape;
  shape.dtype = take_dtype(in);
  shape.heads = in.number<std::uint16_t>();
  shape.positions = in.number<std::uint32_t>();
  shape.width = in.number<std::uint16_t>();
  return shape;
}

}  // namespace kvfs::store
