// KV as plain data: what the model gives and takes, the store keeps and the mount shows.
#pragma once

#include <cstdint>
#include <vector>

#include "codec/base/bytes.h"
#include "codec/base/dtype.h"

namespace kvfs {

// Layout of one layer's KV; layers may differ.
struct LayerShape {
  std::uint16_t kv_heads = 0;
  std::uint16_t key_width = 0;  // elements of one head's key
  std::uint16_t value_width = 0;
  bool operator==(const LayerShape&) const = default;
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
  Bytes value;
};

// How a token's KV was computed. On disk: never renumber.
enum class TokenPath : std::uint8_t { kRead = 0, kGenerated = 1 };

}  // namespace kvfs
