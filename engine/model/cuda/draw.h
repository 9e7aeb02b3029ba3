// The next token of each row, drawn where its logits are: what model/sampling.h says, token for
// token, but for `typical`, which the host keeps. Weights are integers (model/weigh.h): sums know
// no order, so a block of threads draws what one thread of the host would.
//
// Device memory but for to_host, which is the host's and pinned; asynchronous on `stream`.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "engine/model/cuda/kernels.h"

namespace kvfs::model::cuda {

inline constexpr int kMostAhead = 3;                // steps launched that nobody has heard of
inline constexpr int kDrawnSteps = kMostAhead + 1;  // whose tokens the device remembers

struct DrawRow {
  std::uint64_t seed;
  float temperature;  // 0: the best
  std::int32_t top_k;
  float top_p;
  float min_p;
  float repeat_penalty;
  float presence_penalty;
  float frequency_penalty;
  std::int32_t position;       // of the token that is drawn
  std::int32_t drawn_at;       // where in `drawn` it goes: step % kDrawnSteps, row
  std::int32_t changes_begin;  // its part of DrawStep::changes
  std::int32_t changes_end;
  std::int32_t unheard;  // tokens that `changes` does not know yet: at these places of `drawn`
  std::int32_t unheard_at[kMostAhead];
};

// What bias and penalties do to a token's logit; of each token once.
struct LogitChange {
  std::int32_t token;
  float bias;
  std::int32_t count;     // generated so often
  std::int32_t repeated;  // not 0: among the latest
};

// Where a row's token goes by the step after this one: its place follows in the ring, and then it
// is given as what was drawn here.
constexpr std::int32_t next_drawn_at(std::int32_t drawn_at) {
  return (drawn_at + kMaxBatch) % (kDrawnSteps * kMaxBatch);
}
constexpr std::int32_t given_as(std::int32_t drawn_at) {
  return -1 - drawn_at;
}  // StepRows::tokens

// After it, draws, places and tokens are the next step's, if that has the same rows.
struct DrawStep {
  float* logits;  // [rows][vocab]; changed in place
  int vocab;      // ≤ 2^19
  int rows;
  DrawRow* draws;  // [rows]
  const LogitChange* changes;
  RowPlace* places;       // [rows]
  std::int32_t* tokens;   // [rows]
  std::int32_t* drawn;    // [kDrawnSteps][kMaxBatch]
  std::int32_t* to_host;  // the same
};
cudaError_t draw(const DrawStep& step, cudaStream_t stream);

}  // namespace kvfs::model::cuda
