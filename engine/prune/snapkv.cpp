// SnapKV: what the last `window` queries look at, summed over them, pooled over neighbours,
// averaged over the query heads of a KV head; every layer and head keeps the same number.
#include "engine/prune/rules.h"
#include "engine/prune/scores.h"

namespace kvfs::prune {

LayerKept keep(const SnapKv& rule, const LayerObservation& layer, LayerPlace) {
  LayerKept kept;
  for (std::size_t head = 0; head < layer.positions.size(); ++head) {
    const std::size_t count = layer.positions[head].size();
    if (count <= static_cast<std::size_t>(rule.capacity)) {
      kept.push_back(everything(count));
      continue;
    }
    const std::size_t before = count - static_cast<std::size_t>(rule.window);
    kept.push_back(with_last(highest(window_scores(rule, layer, head, before),
                                     static_cast<std::size_t>(rule.capacity - rule.window)),
                             before, count));
  }
  return kept;
}

}  // namespace kvfs::prune
