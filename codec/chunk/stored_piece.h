// What one segment of the store holds, as it is kept: a KvPiece whose chunks nobody has decoded.
#pragma once

#include <vector>

#include "codec/base/kv.h"
#include "codec/chunk/codec.h"

namespace kvfs::chunk {

struct StoredChunk {
  CodecId codec = CodecId::kRaw;
  ShapeClass shape;
  std::size_t begin = 0;  // of its encoded bytes, in StoredPiece::bytes
  std::size_t size = 0;
};

struct StoredPiece {
  std::uint16_t layer = 0;
  std::uint16_t head_begin = 0;
  std::uint16_t head_count = 0;
  std::vector<Position> positions;  // as KvPiece's
  // Heads in their order, as many as shape says in each; together head_count.
  std::vector<StoredChunk> keys;
  std::vector<StoredChunk> values;
  Bytes bytes;

  ByteSpan encoded(const StoredChunk& chunk) const {
    return ByteSpan(bytes).subspan(chunk.begin, chunk.size);
  }
};

}  // namespace kvfs::chunk
