// KVzip: what repeating the text needs. One budget for all layers and heads together, spent on the
// highest weights that the repetition gave; the sinks stay.
#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/prune/rules.h"
#include "engine/prune/scores.h"

namespace kvfs::prune {

Kept keep(const KvZip& rule, const Observation& layers) {
  std::vector<float> all;  // layer after layer, head after head
  for (const LayerObservation& layer : layers) {
    for (std::size_t head = 0; head < layer.positions.size(); ++head) {
      const std::size_t begin = all.size();
      all.resize(begin + layer.positions[head].size());
      const std::span<float> scores = std::span(all).subspan(begin);
      for (const auto& query_head : group_of(layer, head)) {
        std::ranges::transform(scores, query_head, scores.begin(),
                               [](float a, float b) { return std::max(a, b); });
      }
      std::ranges::fill(scores.first(std::min<std::size_t>(kSinks, scores.size())),
                        std::numeric_limits<float>::infinity());
    }
  }
  const auto count = static_cast<std::int64_t>(all.size());
  const KeptEntries chosen = highest(all, static_cast<std::size_t>(rule.keep.of(count)));

  Kept kept;
  std::size_t begin = 0;
  auto next = chosen.begin();
  for (const LayerObservation& layer : layers) {
    LayerKept& of_layer = kept.emplace_back();
    for (const auto& positions : layer.positions) {
      KeptEntries& head = of_layer.emplace_back();
      const std::size_t end = begin + positions.size();
      for (; next != chosen.end() && static_cast<std::size_t>(*next) < end; ++next) {
        head.push_back(static_cast<std::int32_t>(static_cast<std::size_t>(*next) - begin));
      }
      begin = end;
    }
  }
  return kept;
}

}  // namespace kvfs::prune
