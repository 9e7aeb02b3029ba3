// The read path of the fast mode: libtorch's GEMMs on grids of kGridRows rows, read.h's kernels
// around them. Engine thread only; throws libtorch's exceptions and ForwardError.
//
// Up to kMostGrids grids are read layer by layer together, so that weights which the device keeps
// in fewer bits are made bf16 once for all of them. A GEMM has one grid's rows; or all rows of a
// power of two of full grids; or, of a short question, the few rows around it: products.h.
#pragma once

#include <ATen/ATen.h>

#include <array>
#include <span>
#include <vector>

#include "engine/model/cuda/forward.h"
#include "engine/model/cuda/pinned.h"
#include "engine/model/cuda/products.h"
#include "engine/model/cuda/read.h"
#include "engine/model/cuda/watch.h"

namespace kvfs::model::cuda {

class Reader {
 public:
  static constexpr int kMostGrids = 16;
  static constexpr int kGateRows = 2048;  // of gates and ups at a time

  // sizes and weights must outlive it.
  Reader(const LlamaSizes& sizes, const Weights& weights, const PageShape& pages,
         at::Device device);
  // Bytes of device memory that it takes, beside one layer's packed weights made bf16.
  static std::uint64_t memory(const LlamaSizes& sizes);
  // As Forward::read.
  void read(const DeviceSequence& sequence, std::span<const TokenId> tokens,
            std::span<float> logits, const Watch* watch);
  Turning turning() const;

 private:
  struct Uploaded {
    const std::int32_t* tokens;
    void* const* pages;
    const RowPlace* places;  // of the tokens
  };
  // The read at hand: histories that are pruned, or whose weights are watched, take kernels.h's
  // attention.
  struct Task {
    Uploaded uploaded;
    bool general;
    int position;  // of the first token
    int pages;     // that the last one sees
    const Watch* watch;
  };
  Uploaded upload(const DeviceSequence& sequence, std::span<const TokenId> tokens);
  // Rows that go through the GEMMs together: of one grid, or of a power of two of full ones.
  struct Part {
    std::int64_t grid;  // their first in the buffers
    std::int64_t grids;
    ReadRows rows;
  };
  std::vector<Part> parts_of(int position, int count) const;
  bool all_take(std::int64_t rows) const;  // all products
  // Rows of a part that a product computes for those wanted: as few as it has an algorithm for.
  struct Window {
    std::int64_t first;
    std::int64_t count;
  };
  Window window(const RowProduct& product, const Part& part, ReadRows wanted) const;
  // wanted: rows whose results somebody needs; of the others, their keys and values only.
  void read_part(int layer, const Part& part, ReadRows wanted,
                 const std::array<at::Tensor, 4>& weights, const at::Tensor& next_norm,
                 const Task& task);
  void read_layer(int layer, std::span<const Part> parts, bool logits, const Task& task);
  // From normed_ to gated_.
  void gate(const at::Tensor& weights, const Part& part, ReadRows wanted);
  // From qkv_ to attended_: with read.h's kernels, or kernels.h's.
  void attend(int layer, const Part& part, ReadRows wanted, const Task& task);
  void attend_generally(int layer, const Part& part, ReadRows wanted, const Task& task);
  // [outputs, inputs] in bf16 or fp16; what was made of packed weights lasts until the next
  // layer's.
  at::Tensor dense(const WeightMatrix& w, std::size_t place);
  template <class T>
  T* rows(const at::Tensor& buffer, const Part& part) const;
  bool fp16() const { return weights_.embedding.scalar_type() == at::kHalf; }
  HeadShape heads() const { return {sizes_.heads, sizes_.kv_heads, sizes_.head_width}; }

  const LlamaSizes& sizes_;
  const Weights& weights_;
  PageShape pages_;
  at::Device device_;
  // [kMostGrids · kGridRows, …] of fp32 or the weights' type; rows that no token sits in hold
  // numbers of earlier reads. Memory is shared by what never lives at once: qkv_ and gated_,
  // normed_ and attended_.
  at::Tensor residual_, normed_, qkv_, attended_, gated_;
  at::Tensor gate_up_;  // [kGateRows, …]
  at::Tensor last_x_, last_squares_, logits_;
  std::array<at::Tensor, 4> dense_;
  at::Tensor uploaded_;
  RowAttention general_attention_;
  Pinned to_device_, from_device_;
  std::vector<RowProduct> products_;  // of qkv, out, gate_up and down
};

}  // namespace kvfs::model::cuda
