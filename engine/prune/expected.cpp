// Expected attention: of queries to come, taken to be normally distributed, the softmax over what
// is behind the sinks of k·μ / √d + k·Σ·k / 2d; its mean over the group times the value's norm.
#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/prune/rules.h"
#include "engine/prune/scores.h"

namespace kvfs::prune {
namespace {

std::vector<float> softmax(std::span<const float> exponents) {
  std::vector<float> out(exponents.begin(), exponents.end());
  const float top = *std::ranges::max_element(out);
  double sum = 0;
  for (float& x : out) sum += x = std::exp(x - top);
  for (float& x : out) x = static_cast<float>(x / sum);
  return out;
}

}  // namespace

LayerKept keep(const Expected& rule, const LayerObservation& layer, LayerPlace) {
  LayerKept kept;
  for (std::size_t head = 0; head < layer.positions.size(); ++head) {
    const std::size_t count = layer.positions[head].size();
    const auto amount = static_cast<std::size_t>(rule.keep.of(static_cast<std::int64_t>(count)));
    if (count <= kSinks) {
      kept.push_back(everything(std::min(count, std::max<std::size_t>(amount, kSinks))));
      continue;
    }
    std::vector<std::vector<float>> heads;
    for (const auto& exponents : group_of(layer, head)) {
      heads.push_back(softmax(std::span(exponents).subspan(kSinks)));
    }
    std::vector<float> scores(kSinks, std::numeric_limits<float>::infinity());
    std::ranges::transform(mean_of(heads), std::span(layer.value_norms[head]).subspan(kSinks),
                           std::back_inserter(scores), std::multiplies{});
    kept.push_back(highest(scores, amount));
  }
  return kept;
}

}  // namespace kvfs::prune
