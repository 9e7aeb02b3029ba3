// A Llama model's weights on the device, rows of Q and K in transformers' order: of the compute
// type, or, where that is bf16, as a GGUF's own numbers where decode_packed.h knows the kind.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <vector>

#include "engine/model/architecture.h"
#include "engine/model/cuda/decode.h"
#include "engine/model/cuda/llama_sizes.h"

namespace kvfs::model::cuda {

LlamaSizes sizes_of(const Architecture& architecture);

struct WeightMatrix {
  at::Tensor data;  // [outputs, inputs] of the compute type, or the bytes of a packed matrix
  Matrix matrix;    // the same, for kernels

  bool packed() const { return is_packed(matrix.kind); }
};

struct LayerWeights {
  at::Tensor attn_norm;  // [width] fp32
  WeightMatrix qkv;      // [(heads + 2·kv_heads)·head_width, width]
  WeightMatrix out;      // [width, heads·head_width]
  at::Tensor ffn_norm;   // [width] fp32
  WeightMatrix gate_up;  // [2·ffn_width, width]
  WeightMatrix down;     // [width, ffn_width]
};

struct Weights {
  at::Tensor embedding;    // [vocab, width]
  at::Tensor output_norm;  // [width] fp32
  WeightMatrix output;     // [vocab, width]; the embedding's memory when tied and not packed
  at::Tensor frequencies;  // [head_width / 2] fp32, radians a position
  std::vector<LayerWeights> layers;
};

// Bytes of device memory that load_weights will take.
std::uint64_t weights_size(const Architecture& model, at::ScalarType type);

// Both throw libtorch's exceptions (out of memory). type: kBFloat16 or kHalf. kind: of the matrices
// that tokens are multiplied with, kF16 for kHalf.
Weights random_weights(const LlamaSizes& sizes, bool tied, at::ScalarType type, WeightKind kind,
                       at::Device device);
Weights load_weights(const Architecture& model, at::ScalarType type, at::Device device,
                     const std::function<void(double)>& progress);

}  // namespace kvfs::model::cuda
