// Sampling: logits → the next token, and what the model thought of it. Plain data, no device.
//
// Order of operations, on fp32 logits:
//   1. logit_bias is added (OpenAI's field; first, as in llama.cpp's sampler chain);
//   2. repeat_penalty over the last kRepeatWindow tokens, read or generated (CTRL, arXiv
//   1909.05858,
//      section 4.1; positive logits divided, negative ones multiplied, as transformers does);
//   3. frequency_penalty × count + presence_penalty × (count > 0) is subtracted (OpenAI's API
//      reference), the count taken over the tokens generated since text was last read;
//   4. temperature 0: argmax, ties to the lower id; else temperature, top-k, top-p (arXiv
//   1904.09751),
//      min-p (arXiv 2407.01082), typical (arXiv 2202.00666, eq. 9), in transformers' order;
//   5. one draw. It depends on (seed, position) alone — a counter-based generator, Philox4x32-10 —
//   so
//      that stopping and going on equals never having stopped and a batch changes nothing.
// Weights are integers (weigh.h), so a device that draws by itself draws the same tokens.
// Any thread. With everything off, greedy is one pass over the logits.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "codec/base/ids.h"

namespace kvfs::model {

inline constexpr int kRepeatWindow = 64;  // recent tokens that repeat_penalty looks at

struct SamplingParams {
  float temperature = 0.8F;       // ≥ 0; 0 is greedy
  std::int32_t top_k = 0;         // 0: off
  float top_p = 1.0F;             // (0, 1]; 1: off
  float min_p = 0.0F;             // [0, 1); 0: off
  float typical = 1.0F;           // (0, 1]; 1: off
  float repeat_penalty = 1.0F;    // > 0; 1: off
  float presence_penalty = 0.0F;  // [−2, 2]; 0: off
  float frequency_penalty = 0.0F;
  std::vector<std::pair<TokenId, float>> logit_bias;  // ids outside the vocabulary are passed over
  std::uint64_t seed = 0;
};

// What stands before the token that is drawn. Ids below 0 are unknown and count for nothing.
struct Said {
  std::span<const TokenId> history;  // newest last; the last kRepeatWindow and `generated` count
  std::size_t generated = 0;         // how many of its last were generated since text was read
};

// logits [vocab] fp32, unchanged; position: that of the token being drawn.
TokenId sample(std::span<const float> logits, const Said& said, const SamplingParams& params,
               Position position);

struct TokenLogprob {
  TokenId id = -1;
  float logprob = 0.0F;  // natural logarithm, ≤ 0
  bool operator==(const TokenLogprob&) const = default;
};
struct Logprobs {
  TokenLogprob token;             // the one that was drawn
  std::vector<TokenLogprob> top;  // the likeliest, falling, ties to the lower id
  bool operator==(const Logprobs&) const = default;
};

// Of the model's own distribution: log softmax of logits [vocab], before bias, penalties and
// temperature. top: how many of the likeliest, at most the vocabulary.
Logprobs logprobs_of(std::span<const float> logits, TokenId token, std::size_t top);

}  // namespace kvfs::model
