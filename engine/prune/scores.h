// What the methods' rules are made of.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "engine/prune/methods.h"
#include "engine/prune/observation.h"

namespace kvfs::prune {

// Indices of the `count` highest scores (all, if there are no more), ascending; of equals the
// lower index. NaN is below everything.
KeptEntries highest(std::span<const float> scores, std::size_t count);
// 0 … count − 1
KeptEntries everything(std::size_t count);
// The ascending union.
KeptEntries joined(const KeptEntries& a, const KeptEntries& b);
// entries, and all from `first` to `count` on.
KeptEntries with_last(KeptEntries entries, std::size_t first, std::size_t count);

// Mean or maximum over `kernel` neighbours with kernel / 2 zeros (−∞ for the maximum) on either
// side, stride 1: torch's avg_pool1d and max_pool1d with that padding. kernel is odd.
std::vector<float> pooled(std::span<const float> scores, int kernel, Pooling pooling);
// The mean over some heads.
std::vector<float> mean_of(std::span<const std::vector<float>> heads);
// The query heads of a KV head.
std::span<const std::vector<float>> group_of(const LayerObservation& layer, std::size_t kv_head);
// Their scores of the first `count` entries, each pooled, then averaged.
std::vector<float> window_scores(const ByWindow& rule, const LayerObservation& layer,
                                 std::size_t kv_head, std::size_t count);

}  // namespace kvfs::prune
