// StreamingLLM: the newest entries and the attention sinks at the beginning.
#include <algorithm>

#include "engine/prune/rules.h"
#include "engine/prune/scores.h"

namespace kvfs::prune {

LayerKept keep(const KeepLast& rule, const LayerObservation& layer, LayerPlace) {
  LayerKept kept;
  for (const auto& head : layer.positions) {
    const std::size_t count = head.size();
    const std::size_t first =
        count - std::min<std::size_t>(count, static_cast<std::size_t>(rule.n));
    kept.push_back(
        with_last(everything(std::min<std::size_t>(first, static_cast<std::size_t>(rule.sinks))),
                  first, count));
  }
  return kept;
}

}  // namespace kvfs::prune
