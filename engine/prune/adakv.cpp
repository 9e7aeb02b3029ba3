// AdaKV: SnapKV's scores, but the heads of a layer share one budget, spent where scores are
// highest; each keeps at least `safeguard` of its even share. The window counts as part of the
// share.
#include <algorithm>
#include <limits>

#include "engine/prune/rules.h"
#include "engine/prune/scores.h"

namespace kvfs::prune {

LayerKept keep(const AdaKv& rule, const LayerObservation& layer, LayerPlace) {
  const std::size_t heads = layer.positions.size();
  const auto window = static_cast<std::size_t>(rule.window);
  const auto capacity = static_cast<std::size_t>(rule.capacity);
  constexpr float kCertain = std::numeric_limits<float>::infinity();
  auto safe = static_cast<std::size_t>(rule.safeguard * static_cast<double>(capacity));
  if (rule.safeguard > 0) safe = std::max<std::size_t>(safe, 1);

  std::vector<float> all;  // head after head
  std::size_t budget = 0;
  for (std::size_t head = 0; head < heads; ++head) {
    const std::size_t count = layer.positions[head].size();
    const std::size_t before = count - std::min(count, window);
    std::vector<float> scores = window_scores(rule, layer, head, before);
    const std::size_t certain = safe - std::min(safe, window);
    for (const std::int32_t i : highest(scores, certain)) {
      scores[static_cast<std::size_t>(i)] = kCertain;
    }
    scores.resize(count, kCertain);  // the window
    all.insert(all.end(), scores.begin(), scores.end());
    budget += std::min(count, capacity);
  }

  const KeptEntries chosen = highest(all, budget);
  LayerKept kept(heads);
  std::size_t begin = 0;
  auto next = chosen.begin();
  for (std::size_t head = 0; head < heads; ++head) {
    const std::size_t end = begin + layer.positions[head].size();
    for (; next != chosen.end() && static_cast<std::size_t>(*next) < end; ++next) {
      kept[head].push_back(static_cast<std::int32_t>(static_cast<std::size_t>(*next) - begin));
    }
    begin = end;
  }
  return kept;
}

}  // namespace kvfs::prune
