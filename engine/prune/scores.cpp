#include "engine/prune/scores.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

namespace kvfs::prune {

std::int64_t Amount::of(std::int64_t entries) const {
  const double wanted = is_share ? std::floor(value * static_cast<double>(entries)) : value;
  return std::clamp(static_cast<std::int64_t>(wanted), std::int64_t{1}, entries);
}

KeptEntries everything(std::size_t count) {
  KeptEntries all(count);
  std::iota(all.begin(), all.end(), 0);
  return all;
}

KeptEntries highest(std::span<const float> scores, std::size_t count) {
  if (count >= scores.size()) return everything(scores.size());
  KeptEntries chosen;
  if (count == 0) return chosen;
  const auto ranked = [](float score) {
    return std::isnan(score) ? -std::numeric_limits<float>::infinity() : score;
  };
  std::vector<float> all(scores.size());
  std::ranges::transform(scores, all.begin(), ranked);
  const auto last = all.begin() + static_cast<std::ptrdiff_t>(count) - 1;
  std::ranges::nth_element(all, last, std::greater{});
  const float least = *last;
  // Those before it in `all` are no lower; the rest of them equal it.
  auto equals = static_cast<std::size_t>(std::count(all.begin(), last + 1, least));
  chosen.reserve(count);
  for (std::size_t i = 0; i < scores.size(); ++i) {
    const float score = ranked(scores[i]);
    if (score < least || (score == least && equals == 0)) continue;
    if (score == least) --equals;
    chosen.push_back(static_cast<std::int32_t>(i));
  }
  return chosen;
}

KeptEntries joined(const KeptEntries& a, const KeptEntries& b) {
  KeptEntries out;
  std::ranges::set_union(a, b, std::back_inserter(out));
  return out;
}

KeptEntries with_last(KeptEntries entries, std::size_t first, std::size_t count) {
  for (std::size_t i = first; i < count; ++i) entries.push_back(static_cast<std::int32_t>(i));
  return entries;
}

std::vector<float> pooled(std::span<const float> scores, int kernel, Pooling pooling) {
  const auto count = static_cast<std::ptrdiff_t>(scores.size());
  std::vector<float> out;
  out.reserve(scores.size());
  for (std::ptrdiff_t i = 0; i < count; ++i) {
    const auto first = scores.begin() + std::max<std::ptrdiff_t>(0, i - kernel / 2);
    const auto last = scores.begin() + std::min(count, i + kernel / 2 + 1);
    out.push_back(pooling == Pooling::kAverage
                      ? std::accumulate(first, last, 0.0F) / static_cast<float>(kernel)
                      : *std::max_element(first, last));
  }
  return out;
}

std::vector<float> mean_of(std::span<const std::vector<float>> heads) {
  std::vector<float> mean(heads.front().size());
  for (const auto& head : heads) {
    std::ranges::transform(mean, head, mean.begin(), std::plus{});
  }
  for (float& score : mean) score /= static_cast<float>(heads.size());
  return mean;
}

std::span<const std::vector<float>> group_of(const LayerObservation& layer, std::size_t kv_head) {
  const std::size_t group = layer.scores.size() / layer.positions.size();
  return std::span(layer.scores).subspan(kv_head * group, group);
}

std::vector<float> window_scores(const ByWindow& rule, const LayerObservation& layer,
                                 std::size_t kv_head, std::size_t count) {
  std::vector<std::vector<float>> heads;
  for (const auto& head : group_of(layer, kv_head)) {
    heads.push_back(pooled(std::span(head).first(count), rule.kernel, rule.pooling));
  }
  return mean_of(heads);
}

}  // namespace kvfs::prune
