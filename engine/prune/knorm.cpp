// Keys of a small norm draw much attention: those of the lowest norm stay.
#include <algorithm>
#include <functional>

#include "engine/prune/rules.h"
#include "engine/prune/scores.h"

namespace kvfs::prune {

LayerKept keep(const Knorm& rule, const LayerObservation& layer, LayerPlace) {
  LayerKept kept;
  for (std::vector<float> scores : layer.scores) {
    const auto count = static_cast<std::int64_t>(scores.size());
    std::ranges::transform(scores, scores.begin(), std::negate{});
    kept.push_back(highest(scores, static_cast<std::size_t>(rule.keep.of(count))));
  }
  return kept;
}

}  // namespace kvfs::prune
