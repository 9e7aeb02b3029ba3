#include "engine/model/cpu/router.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace kvfs::model::cpu {

void Router::choose(const float* scores, int stride, int rows, int experts, int chosen,
                    bool renormalized) {
  const auto count = static_cast<std::size_t>(experts);
  visits_.resize(std::max(visits_.size(), count));
  for (auto& visits : visits_) visits.clear();
  shares_.resize(count);
  order_.resize(count);
  for (int row = 0; row < rows; ++row) {
    const float* of_row = scores + static_cast<std::size_t>(row) * static_cast<std::size_t>(stride);
    const float top = *std::max_element(of_row, of_row + experts);
    float sum = 0.0F;
    for (std::size_t e = 0; e < count; ++e) sum += shares_[e] = std::exp(of_row[e] - top);
    for (float& share : shares_) share /= sum;
    std::iota(order_.begin(), order_.end(), 0);
    std::stable_sort(order_.begin(), order_.end(), [&](int a, int b) {
      return shares_[static_cast<std::size_t>(a)] > shares_[static_cast<std::size_t>(b)];
    });
    float total = 1.0F;
    if (renormalized) {
      total = 0.0F;
      for (int i = 0; i < chosen; ++i)
        total += shares_[static_cast<std::size_t>(order_[static_cast<std::size_t>(i)])];
    }
    for (int i = 0; i < chosen; ++i) {
      const auto expert = static_cast<std::size_t>(order_[static_cast<std::size_t>(i)]);
      visits_[expert].push_back({row, shares_[expert] / total});
    }
  }
}

}  // namespace kvfs::model::cpu
