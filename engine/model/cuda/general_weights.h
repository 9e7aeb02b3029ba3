// Any family's weights on the device, as the general forward pass multiplies them: matrices of the
// compute type, vectors of fp32.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <vector>

#include "engine/model/architecture.h"

namespace kvfs::model::cuda {

struct GeneralLinear {
  at::Tensor weight;  // [outputs, inputs]
  at::Tensor bias;    // [outputs]; undefined: none
};
struct GeneralNorm {
  Norm::Kind kind = Norm::Kind::kNone;
  at::Tensor weight, bias;  // [length]; bias undefined: none
};
struct GeneralExpert {
  GeneralLinear up, down;
};
struct GeneralLayer {
  GeneralNorm attn_norm, q_norm, k_norm, attn_post, ffn_norm, ffn_post;
  GeneralLinear qkv, attn_out;  // or a convolution's in and out
  at::Tensor taps, taps_bias;   // [taps, width], [width] fp32; undefined: it attends
  GeneralLinear router;
  std::vector<GeneralExpert> experts;
};
struct GeneralRope {
  at::Tensor frequencies, late;  // [pairs]; late undefined: none
};
struct GeneralWeights {
  at::Tensor embedding;  // [vocab, width] of the compute type
  at::Tensor positions;  // [context, width] fp32; undefined: none
  std::vector<GeneralRope> ropes;
  GeneralNorm output_norm;
  GeneralLinear output;  // the embedding's memory when tied
  std::vector<GeneralLayer> layers;
};

// Bytes of device memory that they take, but for vectors.
std::uint64_t general_weights_size(const Architecture& model, at::ScalarType type);
// Throws libtorch's exceptions (out of memory). type: kFloat, kBFloat16 or kHalf.
GeneralWeights load_general_weights(const Architecture& model, at::ScalarType type,
                                    at::Device device, const std::function<void(double)>& progress);

}  // namespace kvfs::model::cuda
