#include <cstddef>

#include "engine/model/cpu/watch.h"

namespace kvfs::model::cpu {
namespace {
std::size_t size(int a, int b) { return static_cast<std::size_t>(a) * static_cast<std::size_t>(b); }
}  // namespace

QueryMoments::QueryMoments(int layers, int heads, int width)
    : heads_(heads),
      width_(width),
      counts_(static_cast<std::size_t>(layers)),
      sums_(size(layers, heads)) {}

const QueryMoments::Sums& QueryMoments::of(int layer, int head) const {
  return sums_[size(layer, heads_) + static_cast<std::size_t>(head)];
}

void QueryMoments::add(int layer, const float* rows, int count, ForkJoin& threads) {
  if (count == 0) return;
  threads.for_each(heads_, [&](int head, int) {
    add_to(sums_[size(layer, heads_) + static_cast<std::size_t>(head)], rows + size(head, width_),
           count);
  });
  counts_[static_cast<std::size_t>(layer)] += count;
}

void QueryMoments::add_to(Sums& sums, const float* rows, int count) const {
  const auto width = static_cast<std::size_t>(width_);
  const std::size_t stride = size(heads_, width_);
  if (sums.origin.empty()) {
    sums.origin.resize(width);
    sums.first.resize(width);
    sums.second.resize(width * width);
    for (int r = 0; r < count; ++r) {
      for (std::size_t i = 0; i < width; ++i)
        sums.origin[i] += rows[static_cast<std::size_t>(r) * stride + i];
    }
    for (float& x : sums.origin) x /= static_cast<float>(count);
  }
  // A slice's sums in fp32, the slices' in fp64. Of the symmetric matrix the lower half.
  std::vector<float> first(width);
  std::vector<float> second(width * width);
  std::vector<float> x(width);
  for (int r = 0; r < count; ++r) {
    const float* row = rows + static_cast<std::size_t>(r) * stride;
    for (std::size_t i = 0; i < width; ++i) x[i] = row[i] - sums.origin[i];
    for (std::size_t i = 0; i < width; ++i) {
      const float factor = x[i];
      float* to = &second[i * width];
      first[i] += factor;
      for (std::size_t j = 0; j <= i; ++j) to[j] += factor * x[j];
    }
  }
  for (std::size_t i = 0; i < width; ++i) sums.first[i] += static_cast<double>(first[i]);
  for (std::size_t i = 0; i < width * width; ++i) sums.second[i] += static_cast<double>(second[i]);
}

std::vector<double> QueryMoments::mean(int layer, int head) const {
  const Sums& sums = of(layer, head);
  const double count = counts_[static_cast<std::size_t>(layer)];
  std::vector<double> mean(static_cast<std::size_t>(width_));
  if (sums.origin.empty()) return mean;
  for (std::size_t i = 0; i < mean.size(); ++i)
    mean[i] = static_cast<double>(sums.origin[i]) + sums.first[i] / count;
  return mean;
}

std::vector<double> QueryMoments::covariance(int layer, int head) const {
  const Sums& sums = of(layer, head);
  const double count = counts_[static_cast<std::size_t>(layer)];
  const auto width = static_cast<std::size_t>(width_);
  std::vector<double> covariance(width * width);
  if (sums.origin.empty()) return covariance;
  for (std::size_t i = 0; i < width; ++i) {
    for (std::size_t j = 0; j <= i; ++j) {
      const double x =
          sums.second[i * width + j] / count - sums.first[i] / count * (sums.first[j] / count);
      covariance[i * width + j] = covariance[j * width + i] = x;
    }
  }
  return covariance;
}

}  // namespace kvfs::model::cpu
