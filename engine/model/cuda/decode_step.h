// One generated token for each of up to kMaxBatch rows, as launches of decode.h's kernels: five a
// layer and two. No libtorch here: benchmarks drive it without.
//
// All pointers are device memory that somebody else owns and that stays where it is as long as a
// recording of the launches is replayed.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/model/cuda/decode.h"
#include "engine/model/cuda/llama_sizes.h"

namespace kvfs::model::cuda {

struct DecodeLayer {
  const float* attn_norm;  // [width]
  Matrix qkv;
  Matrix out;
  const float* ffn_norm;
  Matrix gate_up;
  Matrix down;
};

struct DecodeWeights {
  LlamaSizes sizes;
  const void* embedding;  // [vocab][width]
  const float* output_norm;
  const float* frequencies;  // [head width / 2] radians a position
  Matrix output;
  std::vector<DecodeLayer> layers;
  bool fp16 = false;  // embedding, matrices and activations; else bf16, or packed matrices
};

struct DecodeBuffers {
  float* residual;  // [kMaxBatch][width]
  NormRows normed;  // [kMaxBatch][…]
  float* qkv;       // [kMaxBatch][(heads + 2·kv_heads) · head width]
  float2* turns;    // [kMaxBatch][head width / 2]
  void* attended;   // [kMaxBatch][heads · head width]
  void* gated;      // [kMaxBatch][ffn width]
  float* logits;    // [kMaxBatch][vocab]
  FixedRows fixed;  // of the longest input
};

// Where the rows' histories are.
struct DecodeHistory {
  void* const* pages;  // addresses, KvPlace's
  const PageWork* work;
  WorkRoom room;
  AttentionScratch scratch;
  std::uint32_t pruned =
      0;  // rows whose pages may be sparse: by kernels.h's attention, not by work
};

cudaError_t launch_step(const DecodeWeights& weights, const DecodeBuffers& buffers,
                        const StepRows& step, const DecodeHistory& history, cudaStream_t stream);

// The part of a layer, for benchmarks: each kernel by itself.
enum class StepPart { kBegin, kQkv, kAttend, kOut, kGate, kDown, kLogits };
cudaError_t launch_part(StepPart part, int layer, const DecodeWeights& weights,
                        const DecodeBuffers& buffers, const StepRows& step,
                        const DecodeHistory& history, cudaStream_t stream);

}  // namespace kvfs::model::cuda
