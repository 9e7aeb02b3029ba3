// The read path of the fast mode: libtorch's GEMMs on grids of kGridRows rows, read.h's kernels
// around them. Engine thread only; throws libtorch's exceptions and ForwardError.
//
// Up to kMostGrids grids are read layer by layer together, so that weights which the device keeps
// in fewer bits are made bf16 once for all of them. Every GEMM has one grid's rows: one shape,
// whatever is read with what.
#pragma once

#include <ATen/ATen.h>

#include <array>
#include <span>
#include <vector>

#include "engine/model/cuda/forward.h"
#include "engine/model/cuda/pinned.h"
#include "engine/model/cuda/read.h"

namespace kvfs::model::cuda {

class Reader {
 public:
  static constexpr int kMostGrids = 4;

  // sizes and weights must outlive it.
  Reader(const LlamaSizes& sizes, const Weights& weights, const PageShape& pages,
         at::Device device);
  // As Forward::read.
  void read(const DeviceSequence& sequence, std::span<const TokenId> tokens,
            std::span<float> logits);

 private:
  struct Uploaded {
    const std::int32_t* tokens;
    void* const* pages;
  };
  Uploaded upload(const DeviceSequence& sequence, std::span<const TokenId> tokens);
  void read_layer(int layer, std::span<const ReadRows> grids, void* const* pages);
  // [outputs, inputs] in bf16; what was made of packed weights lasts until the next layer's.
  at::Tensor dense(const WeightMatrix& w, std::size_t place);
  float* residual(std::size_t grid) const;
  __nv_bfloat16* normed(std::size_t grid) const;
  HeadShape heads() const { return {sizes_.heads, sizes_.kv_heads, sizes_.head_width}; }

  const LlamaSizes& sizes_;
  const Weights& weights_;
  PageShape pages_;
  at::Device device_;
  // [kMostGrids, kGridRows, width]; rows that no token sits in hold numbers of earlier reads.
  at::Tensor residual_, normed_;
  at::Tensor qkv_, attended_, projected_, gate_up_, gated_;  // [kGridRows, …]
  at::Tensor last_x_, last_squares_, logits_;
  std::array<at::Tensor, 4> dense_;
  at::Tensor uploaded_;
  Pinned to_device_, from_device_;
};

}  // namespace kvfs::model::cuda
