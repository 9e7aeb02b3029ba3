// KV as plain data: what the model gives and takes, the store keeps and the mount shows.
#pragma once

#include <cstdint>
#include <vector>

#include "codec/base/bytes.h"
#include "codec/base/dtype.h"
#include "codec/base/ids.h"

namespace kvfs {

// What a layer keeps of the past. On disk: never renumber.
enum class LayerKind : std::uint8_t {
  kFull = 0,  // every position's key and value
  kWindow = 1,
  kRecurrent = 2,
  kLatent = 3,
  // A short convolution's state: its inputs at the last positions of each block. One head; its
  // keys are the inputs, there are no values.
  kConvolution = 4,
};

// Layout of what one layer keeps; layers may differ.
struct LayerShape {
  std::uint16_t kv_heads = 0;
  std::uint16_t key_width = 0;    // elements of one head's key; a convolution's channels
  std::uint16_t value_width = 0;  // 0: no values
  LayerKind kind = LayerKind::kFull;
  std::uint16_t kept = kBlockTokens;  // positions of a block, the last ones, 1 … kBlockTokens
  bool operator==(const LayerShape&) const = default;

  std::uint64_t block_elements() const {  // of a full block
    return std::uint64_t{kept} * kv_heads * (std::uint64_t{key_width} + value_width);
  }
};

// One layer's KV at positions of one block, for a run of heads that share their positions.
// Row-major: key [heads, positions, key_width], value [heads, positions, value_width] of the
// model's KV dtype; keys are post-RoPE, in transformers' order of dimensions.
struct KvPiece {
  std::uint16_t layer = 0;
  std::uint16_t head_begin = 0;
  std::uint16_t head_count = 0;
  std::vector<Position> positions;  // ascending, all inside one block of the absolute grid
  Bytes key;
  Bytes value;  // empty where value_width is 0
  LayerKind kind = LayerKind::kFull;
};

// How a token's KV was computed. On disk: never renumber.
enum class TokenPath : std::uint8_t { kRead = 0, kGenerated = 1 };

}  // namespace kvfs
