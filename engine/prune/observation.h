// What the model saw of a cache, and what a method keeps of it.
#pragma once

#include <cstdint>
#include <vector>

#include "codec/base/ids.h"

namespace kvfs::prune {

// A number an entry, for some heads: [head][entry], fp32.
using HeadScores = std::vector<std::vector<float>>;

struct LayerObservation {
  // By KV head: positions of its entries, ascending. Heads differ where they were pruned so.
  std::vector<std::vector<Position>> positions;
  // By what the method needs; query head q looks at the entries of KV head q / group.
  //   kKeyNorms         by KV head: L2 norm of the key
  //   kNewestQuery      by query head: softmax weights of the newest token's query
  //   kWindowQueries    by query head: … summed over the queries of the last `window` tokens
  //   kAllQueries       by query head: … summed over all queries, over how many could see the entry
  //   kExpectedQueries  by query head: k·μ / √d + k·Σ·k / 2d, before any softmax
  //   kReconstruction   by query head: the highest weight that any token of the repetition gave it
  HeadScores scores;
  HeadScores value_norms;  // kExpectedQueries: by KV head, L2 norm of the value
};
using Observation = std::vector<LayerObservation>;  // by layer, from the bottom

// Indices into a KV head's entries, ascending.
using KeptEntries = std::vector<std::int32_t>;
using LayerKept = std::vector<KeptEntries>;  // by KV head
using Kept = std::vector<LayerKept>;         // by layer

}  // namespace kvfs::prune
