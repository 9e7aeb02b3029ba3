// The notebook rule: B = max(round(bottom − i · (bottom − top) / (layers − 1)), window), half to
// even. Beside the last `window` entries stay the B − window that the newest token looks at most;
// with select=heads every query head has its own say and the layer keeps what any of them named.
#include <algorithm>
#include <cmath>

#include "engine/prune/rules.h"
#include "engine/prune/scores.h"

namespace kvfs::prune {

int budget_of(const Pyramid& rule, LayerPlace place) {
  double budget = rule.bottom;
  if (place.count > 1) {
    budget -= static_cast<double>(place.index) * (rule.bottom - rule.top) / (place.count - 1);
  }
  return std::max(static_cast<int>(std::nearbyint(budget)), rule.window);
}

LayerKept keep(const Pyramid& rule, const LayerObservation& layer, LayerPlace place) {
  const std::size_t count = layer.positions.front().size();
  const auto budget = static_cast<std::size_t>(budget_of(rule, place));
  const auto window = static_cast<std::size_t>(rule.window);
  if (count <= budget) return LayerKept(layer.positions.size(), everything(count));

  const auto best = [&](std::span<const float> scores) {
    return highest(scores.first(count - window), budget - window);
  };
  KeptEntries chosen;
  if (rule.select == Pyramid::Select::kMean) {
    chosen = best(mean_of(layer.scores));
  } else {
    for (const auto& head : layer.scores) chosen = joined(chosen, best(head));
  }
  return LayerKept(layer.positions.size(), with_last(std::move(chosen), count - window, count));
}

}  // namespace kvfs::prune
