// H2O: the heavy hitters, by the attention received from all queries that could see them, and the
// newest entry, which no query but its own has seen.
#include "engine/prune/rules.h"
#include "engine/prune/scores.h"

namespace kvfs::prune {

LayerKept keep(const H2o& rule, const LayerObservation& layer, LayerPlace) {
  LayerKept kept;
  for (std::size_t head = 0; head < layer.positions.size(); ++head) {
    const std::vector<float> scores = mean_of(group_of(layer, head));
    const std::size_t count = scores.size();
    const auto amount = static_cast<std::size_t>(rule.keep.of(static_cast<std::int64_t>(count)));
    kept.push_back(
        with_last(highest(std::span(scores).first(count - 1), amount - 1), count - 1, count));
  }
  return kept;
}

}  // namespace kvfs::prune
