// The weights of a llama on the CPU, ready to be multiplied.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "engine/model/cpu/matrix.h"
#include "engine/model/llama_config.h"
#include "engine/model/model.h"

namespace kvfs::model::cpu {

// Matrices with one input, side by side in one output row: fused where their kinds allow.
struct Projection {
  struct Part {
    std::unique_ptr<Matrix> matrix;
    int column;  // of the output row where its outputs start
  };
  std::vector<Part> parts;

  bool wants_quantized() const;
  Status multiply(const Activations& in, Output out, ForkJoin& pool) const;
};

struct LayerWeights {
  std::vector<float> attn_norm;  // [width]
  Projection qkv;                // [heads · head_width | kv_heads · head_width | the same]
  Projection attn_out;
  std::vector<float> ffn_norm;
  Projection gate_up;  // [ffn_width | ffn_width]
  Projection down;
};

struct Weights {
  std::vector<LayerWeights> layers;
  std::vector<float> output_norm;
  Projection output;  // [vocab]
};

// Bytes that load_weights will take.
std::uint64_t weights_size(const LlamaModel& model, Compute compute);

Result<Weights> load_weights(const LlamaModel& model, Compute compute, const Kernels& kernels,
                             ForkJoin& pool, const std::function<void(double)>& progress);

}  // namespace kvfs::model::cpu
