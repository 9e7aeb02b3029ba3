#include "engine/sched/divergence.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace kvfs::sched {
namespace {

// ln Σ exp(logit)
double log_sum(std::span<const float> logits) {
  const double top = static_cast<double>(*std::ranges::max_element(logits));
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - top);
  return top + std::log(sum);
}

}  // namespace

double log_probability(std::span<const float> logits, TokenId token) {
  return static_cast<double>(logits[static_cast<std::size_t>(token)]) - log_sum(logits);
}

double divergence(std::span<const float> full, std::span<const float> other) {
  const double of_full = log_sum(full);
  const double of_other = log_sum(other);
  double sum = 0;
  for (std::size_t token = 0; token < full.size(); ++token) {
    const double log_p = static_cast<double>(full[token]) - of_full;
    const double p = std::exp(log_p);
    if (p > 0) sum += p * (log_p - (static_cast<double>(other[token]) - of_other));
  }
  return std::max(sum, 0.0);
}

}  // namespace kvfs::sched
