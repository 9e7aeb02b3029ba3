// What a page holds of each layer, and where: the layers one behind the other, [key, value]
// [kv_heads][256][width] of the KV type, or of a convolution the inputs at the last `kept` of the
// page's positions that were computed, [kept][channels], that of slot s in row s % kept. Plain
// data, any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "codec/base/bytes.h"
#include "codec/base/kv.h"
#include "codec/base/result.h"

namespace kvfs::model::cuda {

struct PageShape {
  // kv_heads, width: of the layers that attend.
  PageShape(std::vector<LayerShape> of, int kv_heads, int width, DType dtype);

  std::vector<LayerShape> kinds;  // by layer
  int layers;
  int kv_heads;
  int width;
  DType dtype;                       // kBF16 or kF32
  std::vector<std::int64_t> begins;  // elements of a page before each layer
  std::int64_t elements = 0;         // of a page
  int kept = kBlockTokens;           // the fewest positions that a layer keeps of a page

  const LayerShape& kind(int layer) const { return kinds[static_cast<std::size_t>(layer)]; }
  bool convolves(int layer) const { return kind(layer).kind == LayerKind::kConvolution; }
  bool convolves() const { return kept < kBlockTokens; }  // some layer does
  std::int64_t side_elements() const { return std::int64_t{kv_heads} * kBlockTokens * width; }
  std::int64_t page_bytes() const { return elements * static_cast<std::int64_t>(size_of(dtype)); }
  // Elements from a page's beginning to a layer's keys (side 0; or inputs) or values (side 1).
  std::int64_t offset(int layer, int side) const {
    return begins[static_cast<std::size_t>(layer)] + side * side_elements();
  }
  // Bytes of the inputs of a convolution's layer at `positions` positions.
  std::size_t input_bytes(int layer, std::size_t positions) const {
    return positions * kind(layer).key_width * size_of(dtype);
  }
  // What such a layer keeps of a page's first `count` positions, of its rows as they lie there.
  // first: the position of slot 0.
  KvPiece inputs(std::uint16_t layer, Position first, int count, ByteSpan rows) const;
  // The rows of such a piece as they lie in a page, from its row 0 on.
  Bytes rows_of(const KvPiece& piece) const;
  // That heads and positions are a layer's, and of one block; kInvalid.
  Status check_place(int layer, int head_begin, int head_count,
                     std::span<const Position> positions) const;
  // That, and that the piece is of the layer's kind and size; kInvalid, kUnsupported.
  Status check(const KvPiece& piece) const;
};

}  // namespace kvfs::model::cuda
