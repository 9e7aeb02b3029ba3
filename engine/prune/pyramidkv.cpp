// PyramidKV: SnapKV's scores under budgets that fall from layer to layer and have SnapKV's sum.
#include <algorithm>

#include "engine/prune/rules.h"
#include "engine/prune/scores.h"

namespace kvfs::prune {

int budget_of(const PyramidKv& rule, int entries, LayerPlace place) {
  const int even = rule.capacity - rule.window;
  if (entries < 2 * even || place.count == 1) return even;
  int least = even / rule.beta;
  int most = 2 * even - least;
  if (most >= entries - rule.window) {
    most = entries - rule.window;
    least = 2 * even - most;
  }
  return most - place.index * ((most - least) / (place.count - 1));
}

LayerKept keep(const PyramidKv& rule, const LayerObservation& layer, LayerPlace place) {
  LayerKept kept;
  for (std::size_t head = 0; head < layer.positions.size(); ++head) {
    const std::size_t count = layer.positions[head].size();
    if (count < static_cast<std::size_t>(rule.capacity)) {
      kept.push_back(everything(count));
      continue;
    }
    const std::size_t before = count - static_cast<std::size_t>(rule.window);
    const int budget = std::max(0, budget_of(rule, static_cast<int>(count), place));
    kept.push_back(with_last(
        highest(window_scores(rule, layer, head, before), static_cast<std::size_t>(budget)), before,
        count));
  }
  return kept;
}

}  // namespace kvfs::prune
