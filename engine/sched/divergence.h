// How far apart two distributions over the vocabulary are. Pure functions, any thread; logits are
// [vocab] fp32, sums are taken in double.
#pragma once

#include <span>

#include "codec/base/ids.h"

namespace kvfs::sched {

// log softmax of one token, natural logarithm, ≤ 0.
double log_probability(std::span<const float> logits, TokenId token);

// KL(full ‖ other) = Σ p (ln p − ln q), in nats, ≥ 0; 0 exactly where the logits are the same.
double divergence(std::span<const float> full, std::span<const float> other);

}  // namespace kvfs::sched
