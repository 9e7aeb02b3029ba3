// A piece of KV as the store keeps it: slices by heads of at most 131,072 bytes, each encoded.
#pragma once

#include <algorithm>

#include "codec/chunk/stored_piece.h"

namespace kvfs::model::cuda {

inline chunk::StoredPiece stored(const KvPiece& piece, DType dtype, chunk::CodecId codec) {
  chunk::StoredPiece out{.layer = piece.layer,
                         .head_begin = piece.head_begin,
                         .head_count = piece.head_count,
                         .positions = piece.positions,
                         .keys = {},
                         .values = {},
                         .bytes = {}};
  const auto add = [&](const Bytes& side, std::vector<chunk::StoredChunk>& chunks) {
    const std::size_t head = side.size() / piece.head_count;
    std::size_t heads = std::clamp<std::size_t>(131'072 / head, 1, piece.head_count);
    while (piece.head_count % heads != 0) --heads;
    const chunk::ShapeClass shape{
        dtype, static_cast<std::uint16_t>(heads),
        static_cast<std::uint32_t>(piece.positions.size()),
        static_cast<std::uint16_t>(head / piece.positions.size() / size_of(dtype))};
    for (std::size_t at = 0; at < side.size(); at += heads * head) {
      const auto encoded = chunk::encode(codec, shape, ByteSpan(side).subspan(at, heads * head));
      chunks.push_back({encoded.codec, shape, out.bytes.size(), encoded.bytes.size()});
      out.bytes.insert(out.bytes.end(), encoded.bytes.begin(), encoded.bytes.end());
    }
  };
  add(piece.key, out.keys);
  add(piece.value, out.values);
  return out;
}

}  // namespace kvfs::model::cuda
