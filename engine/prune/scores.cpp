#include "engine/prune/scores.h"

#include <algorithm>
#include <cmath>
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
  KeptEntries order = everything(scores.size());
  if (count >= order.size()) return order;
  const auto score = [&](std::int32_t i) {
    const float s = scores[static_cast<std::size_t>(i)];
    return std::isnan(s) ? -std::numeric_limits<float>::infinity() : s;
  };
  const auto last = order.begin() + static_cast<std::ptrdiff_t>(count);
  std::ranges::nth_element(order, last, [&](std::int32_t a, std::int32_t b) {
    return score(a) != score(b) ? score(a) > score(b) : a < b;
  });
  order.erase(last, order.end());
  std::ranges::sort(order);
  return order;
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
