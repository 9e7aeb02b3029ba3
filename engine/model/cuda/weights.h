// A Llama model's weights on the device: dequantized to the compute type, rows of Q and K in
// transformers' order.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <vector>

#include "engine/model/architecture.h"
#include "engine/model/cuda/llama_sizes.h"

namespace kvfs::model::cuda {

LlamaSizes sizes_of(const Architecture& architecture);

struct LayerWeights {
  at::Tensor attn_norm;  // [width] fp32
  at::Tensor qkv;        // [(heads + 2·kv_heads)·head_width, width]
  at::Tensor out;        // [width, heads·head_width]
  at::Tensor ffn_norm;   // [width] fp32
  at::Tensor gate_up;    // [2·ffn_width, width]
  at::Tensor down;       // [width, ffn_width]
};

struct Weights {
  at::Tensor embedding;    // [vocab, width]
  at::Tensor output_norm;  // [width] fp32
  at::Tensor output;       // [vocab, width]; the embedding when tied
  at::Tensor frequencies;  // [head_width / 2] fp32, radians a position
  std::vector<LayerWeights> layers;
};

// Both throw libtorch's exceptions (out of memory). type: kFloat or kBFloat16.
Weights random_weights(const LlamaSizes& sizes, bool tied, at::ScalarType type, at::Device device);
Weights load_weights(const Architecture& model, at::ScalarType type, at::Device device,
                     const std::function<void(double)>& progress);

}  // namespace kvfs::model::cuda
