// Takes a span of positions out of every layer: a turn in the middle of a chat, say.
#include "engine/prune/rules.h"

namespace kvfs::prune {

LayerKept keep(const Drop& rule, const LayerObservation& layer, LayerPlace) {
  LayerKept kept;
  for (const auto& positions : layer.positions) {
    KeptEntries& head = kept.emplace_back();
    for (std::size_t i = 0; i < positions.size(); ++i) {
      if (positions[i] < rule.from || positions[i] >= rule.to) {
        head.push_back(static_cast<std::int32_t>(i));
      }
    }
  }
  return kept;
}

}  // namespace kvfs::prune
