// The weights of an architecture on the CPU, ready to be multiplied. Laid out as it is.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "engine/model/architecture.h"
#include "engine/model/cpu/huge_memory.h"
#include "engine/model/cpu/matrix.h"
#include "engine/model/model.h"

namespace kvfs::model::cpu {

// Matrices with one input, side by side in one output row: fused where their kinds allow.
struct Projection {
  struct Part {
    std::unique_ptr<Matrix> matrix;
    int column;  // of the output row where its outputs start
  };
  std::vector<Part> parts;
  std::vector<float> bias;  // [outputs rounded up to 8]; empty: none
  int inputs = 0;

  bool wants_quantized() const;
  // Without the bias.
  Status multiply(const Activations& in, Output out, ForkJoin& pool) const;
};

struct NormWeights {
  Norm::Kind kind = Norm::Kind::kNone;
  std::vector<float> weight;
  std::vector<float> bias;  // empty: none
};

// As it is meant: 1 + w where the file has w.
NormWeights norm_weights(const Norm& norm);
// A vector; empty: there is none.
std::vector<float> floats_of(const Tensor* tensor);
// [taps, channels], the newest last.
std::vector<float> taps_of(const Convolution& from, std::size_t channels);
// One below the other, zeros where a slice has none; padded to a multiple of 8.
std::vector<float> bias_of(const std::vector<Slice>& slices);

struct FeedForwardWeights {
  Projection up;
  Projection down;
};

struct ConvolutionWeights {
  Projection in;
  Projection out;
  std::vector<float> taps;  // [K, channels], the newest last
  std::vector<float> bias;  // [channels]; zeros where there is none
};

struct LayerWeights {
  NormWeights attn_norm, q_norm, k_norm, attn_post, ffn_norm, ffn_post;
  Projection qkv;
  Projection attn_out;
  ConvolutionWeights convolution;
  Projection router;
  std::vector<FeedForwardWeights> experts;
};

struct Weights {
  Arena memory;  // of the packed matrices
  std::vector<LayerWeights> layers;
  NormWeights output_norm;
  Projection output;  // [vocab]
};

// Bytes that load_weights will take, and what is read of the files afterwards: the embedding.
std::uint64_t weights_size(const Architecture& architecture, Compute compute);

Result<Weights> load_weights(const Architecture& architecture, Compute compute,
                             const Kernels& kernels, ForkJoin& pool,
                             const std::function<void(double)>& progress);

}  // namespace kvfs::model::cpu
