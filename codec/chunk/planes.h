// The inner loops of zh: elements ↔ symbol plane and rest planes, as codec/chunk/zh.h defines them.
// Plain loops over rows that the compiler turns into vector code. Any thread; spans' sizes are the
// caller's word: elements N * size_of(dtype), symbols N, rest N * rest_bytes(dtype), centres
// heads * width, where N = heads * positions * width.
#pragma once

#include "codec/chunk/codec.h"

namespace kvfs::chunk {

// Bytes of an element that are kept raw; 0 for a dtype that zh does not take.
constexpr std::size_t rest_bytes(DType dtype) {
  switch (dtype) {
    case DType::kBF16:
    case DType::kF16:
      return 1;
    case DType::kF32:
      return 3;
    default:
      return 0;
  }
}

// The rounded mean exponent of each channel.
void mean_exponents(const ShapeClass& shape, ByteSpan elements, MutableByteSpan centres);

void split_planes(const ShapeClass& shape, ByteSpan elements, ByteSpan centres,
                  MutableByteSpan symbols, MutableByteSpan rest);

void join_planes(const ShapeClass& shape, ByteSpan symbols, ByteSpan rest, ByteSpan centres,
                 MutableByteSpan elements);

}  // namespace kvfs::chunk
