#include "engine/model/cuda/decode_step.h"

#include <cmath>

namespace kvfs::model::cuda {
namespace {

// Of a page: [layers][key, value][kv_heads][256][width].
KvPlace kv_of(const LlamaSizes& sizes, int layer, void* const* pages) {
  const std::int64_t side = std::int64_t{sizes.kv_heads} * kPageTokens * sizes.head_width;
  return {pages, 2 * layer * side, (2 * layer + 1) * side};
}

// The pruned rows' attention, after the others'. The scratch has room for either kind's sums.
cudaError_t attend_pruned(int layer, const DecodeWeights& weights, const DecodeBuffers& b,
                          const StepRows& step, const DecodeHistory& history, cudaStream_t stream) {
  const LlamaSizes& sizes = weights.sizes;
  const HeadShape shape{sizes.heads, sizes.kv_heads, sizes.head_width};
  const KvPlace kv = kv_of(sizes, layer, history.pages);
  const cudaError_t error =
      rope_and_store<__nv_bfloat16>(b.qkv, {weights.frequencies, sizes.head_width / 2}, step.places,
                                    step.rows, shape, kv, stream, history.pruned);
  if (error != cudaSuccess) return error;
  const AttentionRule rule{1.0F / std::sqrt(static_cast<float>(sizes.head_width))};
  return for_activations(weights.fp16, [&]<class T>(T*) {
    return attention(b.qkv, step.places, step.rows, history.scratch.pages, shape, rule, kv,
                     reinterpret_cast<float*>(history.scratch.sums), static_cast<T*>(b.attended),
                     stream, history.pruned);
  });
}

}  // namespace

cudaError_t launch_part(StepPart part, int layer, const DecodeWeights& weights,
                        const DecodeBuffers& b, const StepRows& step, const DecodeHistory& history,
                        cudaStream_t stream) {
  const LlamaSizes& sizes = weights.sizes;
  const auto index = static_cast<std::size_t>(layer);
  const DecodeLayer& w = weights.layers[index];
  switch (part) {
    case StepPart::kBegin:
      return begin_step(weights.embedding, step, sizes.width, weights.layers.front().attn_norm,
                        weights.frequencies, sizes.head_width, b.residual, b.normed, b.turns,
                        stream, weights.fp16);
    case StepPart::kQkv:
      return project(w.qkv, b.normed, sizes.rms_epsilon, step.rows, b.qkv, stream, b.fixed);
    case StepPart::kAttend: {
      cudaError_t error = cudaSuccess;
      if (history.room.shared + history.room.single > 0) {
        error = attend(b.qkv, b.turns, step, history.work, history.room,
                       {sizes.heads, sizes.kv_heads, sizes.head_width},
                       kv_of(sizes, layer, history.pages), history.scratch, b.attended, stream,
                       weights.fp16);
      }
      if (error != cudaSuccess || history.pruned == 0) return error;
      return attend_pruned(layer, weights, b, step, history, stream);
    }
    case StepPart::kOut:
      return add_product(w.out, b.attended, step.rows, b.residual, w.ffn_norm, b.normed, stream,
                         b.fixed);
    case StepPart::kGate:
      return gate(w.gate_up, b.normed, sizes.rms_epsilon, step.rows, b.gated, stream, b.fixed);
    case StepPart::kDown: {
      const bool last = index + 1 == weights.layers.size();
      const float* next = last ? weights.output_norm : weights.layers[index + 1].attn_norm;
      return add_product(w.down, b.gated, step.rows, b.residual, next, b.normed, stream, b.fixed);
    }
    case StepPart::kLogits:
      return project(weights.output, b.normed, sizes.rms_epsilon, step.rows, b.logits, stream,
                     b.fixed);
  }
  return cudaErrorInvalidValue;
}

cudaError_t launch_step(const DecodeWeights& weights, const DecodeBuffers& buffers,
                        const StepRows& step, const DecodeHistory& history, cudaStream_t stream) {
  const auto launch = [&](StepPart part, int layer) {
    return launch_part(part, layer, weights, buffers, step, history, stream);
  };
  cudaError_t error = launch(StepPart::kBegin, 0);
  for (int layer = 0; layer < weights.sizes.layers; ++layer) {
    for (const StepPart part :
         {StepPart::kQkv, StepPart::kAttend, StepPart::kOut, StepPart::kGate, StepPart::kDown}) {
      if (error == cudaSuccess) error = launch(part, layer);
    }
  }
  return error == cudaSuccess ? launch(StepPart::kLogits, 0) : error;
}

}  // namespace kvfs::model::cuda
