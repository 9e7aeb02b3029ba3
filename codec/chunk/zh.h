// zh: the lossless codec of KV. Floats are split into an exponent plane, which is entropy coded,
// and the bits that are noise, which are kept as they are. Any thread; pure but for zstd's scratch.
//
// The elements are x[h][p][d], h < heads, p < positions, d < width: a channel is one (h, d).
// N = heads * positions * width. All numbers are little-endian. The encoded bytes are, without
// gaps:
//
//   bytes            what
//   1                layout version, 1
//   1                flags: bit 0 = centres are present; the other bits are 0
//   2                0
//   4                F, the length of the frame
//   heads * width    centres c[h][d], one byte each; absent when bit 0 of the flags is 0 (then c =
//   0) N * R            rest planes, raw: R = 1 for BF16 and F16, 3 for F32 F                one
//   zstd frame of N bytes, the symbol plane in the order of the elements
//
// A symbol and the rest of an element (s = sign, e = exponent field, m = mantissa field):
//
//   dtype  symbol, 8 bits                                     rest
//   BF16   (e - c) mod 256                                    s << 7 | m
//   F16    s << 7 | ((e - c) mod 32) << 2 | m >> 8            m & 255
//   F32    (e - c) mod 256                                    plane 1, N bytes: s << 7 | m >> 16
//                                                             plane 2, 2 N bytes: m & 65535
//
// The frame is written with no matches at all, so each block of 128 KiB is one order-0 Huffman code
// (RFC 8878, 3.1.1.3.1): matches among exponents gain nothing and cost half the speed. A reader
// takes any frame. c is the rounded mean of the channel's exponents; a reader takes any.
#pragma once

#include <optional>

#include "codec/chunk/codec.h"

namespace kvfs::chunk {

// Nothing where it would not be smaller than the bytes, or the dtype is no float.
std::optional<Bytes> zh_encode(const ShapeClass& shape, ByteSpan bytes);

// kCorrupt unless every length is right. out.size() == shape.byte_size().
Status zh_decode(const ShapeClass& shape, ByteSpan encoded, MutableByteSpan out);

// Where the planes of such a chunk lie; kCorrupt as zh_decode, but that the frame is not opened.
struct ZhParts {
  ByteSpan centres;  // empty: all are 0
  ByteSpan rest;
  ByteSpan frame;
};
Result<ZhParts> zh_parts(const ShapeClass& shape, ByteSpan encoded);

}  // namespace kvfs::chunk
