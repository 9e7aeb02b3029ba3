// TOVA: what the newest token looks at, by the mean over all query heads: one choice a layer. The
// newest entry itself stays.
#include "engine/prune/rules.h"
#include "engine/prune/scores.h"

namespace kvfs::prune {

LayerKept keep(const Tova& rule, const LayerObservation& layer, LayerPlace) {
  const std::vector<float> scores = mean_of(layer.scores);
  const std::size_t count = scores.size();
  const auto amount = static_cast<std::size_t>(rule.keep.of(static_cast<std::int64_t>(count)));
  return LayerKept(
      layer.positions.size(),
      with_last(highest(std::span(scores).first(count - 1), amount - 1), count - 1, count));
}

}  // namespace kvfs::prune
