// Chunk codecs: bytes of one KV piece ↔ the bytes stored for it. One encoder each behind one table.
//
// Pure functions, any thread; nothing is kept but zstd's scratch, one a thread. Decoding checks every
// length against the encoded bytes, so damaged input yields kCorrupt and never reads or writes out of
// bounds.
#pragma once

#include <cstdint>
#include <string_view>

#include "codec/base/bytes.h"
#include "codec/base/dtype.h"

namespace kvfs::chunk {

// On disk: never renumber.
enum class CodecId : std::uint8_t {
  kRaw = 0,  // the bytes as they are
  kZh = 1,   // lossless: bf16 (fp16, fp32) split into planes, exponents through zstd's Huffman-only path
};

// What a chunk's bytes mean: part of its id, so equal bytes of unequal shapes stay apart.
// Row-major [heads, positions, width] of dtype.
struct ShapeClass {
  DType dtype = DType::kBF16;
  std::uint16_t heads = 0;
  std::uint32_t positions = 0;
  std::uint16_t width = 0;  // elements of one head's key or value

  std::size_t byte_size() const {
    return size_of(dtype) * heads * positions * width;
  }
  bool operator==(const ShapeClass&) const = default;
};

struct Encoded {
  CodecId codec = CodecId::kRaw;  // kRaw when the wanted codec would not have made it smaller
  Bytes bytes;
};

// bytes.size() == shape.byte_size().
Encoded encode(CodecId wanted, const ShapeClass& shape, ByteSpan bytes);

// Writes exactly shape.byte_size() == out.size() bytes, or fails with kCorrupt.
Status decode(CodecId codec, const ShapeClass& shape, ByteSpan encoded, MutableByteSpan out);

std::string_view name_of(CodecId codec);               // "raw", "zh"
Result<CodecId> codec_from_name(std::string_view name);  // kInvalid lists the known names

}  // namespace kvfs::chunk
