// Sampling: logits → the next token. Plain data, no device.
//
// Order of operations: repeat penalty over recent tokens, then temperature 0 → argmax (ties to the
// lower id), else temperature, top-k, top-p, min-p on fp32 logits, then one draw. The draw depends on
// (seed, position) alone — a counter-based generator, Philox4x32-10 — so that stopping and going on
// equals never having stopped and a batch changes nothing.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "codec/base/ids.h"

namespace kvfs::model {

inline constexpr int kRepeatWindow = 64;  // recent tokens that repeat_penalty looks at

struct SamplingParams {
  float temperature = 0.8F;    // ≥ 0; 0 is greedy
  std::int32_t top_k = 0;      // 0: off
  float top_p = 1.0F;          // (0, 1]; 1: off
  float min_p = 0.0F;          // [0, 1); 0: off
  float repeat_penalty = 1.0F; // > 0; 1: off (CTRL, arXiv 1909.05858, eq. 5.1)
  std::uint64_t seed = 0;
};

// logits [vocab] fp32, unchanged; recent: the last tokens of the history, newest last (only the last
// kRepeatWindow are looked at); position: that of the token being drawn.
TokenId sample(std::span<const float> logits, std::span<const TokenId> recent,
               const SamplingParams& params, Position position);

}  // namespace kvfs::model
