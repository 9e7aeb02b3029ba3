// What is kept of a read's queries while it is computed, for methods of pruning; and the attention
// of many rows, watched or not. Engine thread, on the current stream; throws libtorch's exceptions
// and ForwardError.
#pragma once

#include <ATen/ATen.h>

#include "engine/model/cuda/kernels.h"
#include "engine/model/cuda/looking.h"

namespace kvfs::model::cuda {

// Of one sequence's rows; the memory is the observer's.
struct Watch {
  // [layers][pages][heads][256 slots] fp32; null: weights are not wanted.
  float* weights = nullptr;
  int pages = 0;      // that there is room for
  WeightRule rule;    // but for its scratch
  QuerySums queries;  // each [layers] of a layer's; no origin: not wanted

  QuerySums queries_of(int layer, HeadShape shape) const;
  // Adds the rows' queries, before they are turned, but for those of the sinks, which are like no
  // others. position: of the first row.
  void see_queries(int layer, const float* qkv, int position, int rows, HeadShape shape) const;
};

// attention(), in as many launches as its scratch wants.
class RowAttention {
 public:
  explicit RowAttention(at::Device device) : device_(device) {}

  // Rows of a layer, as attention() has them; watch: null, or of what weights they give.
  template <class T>
  void run(int layer, const float* qkv, const RowPlace* places, int rows, int most_pages,
           HeadShape shape, const AttentionRule& rule, KvPlace kv, T* out, const Watch* watch);

 private:
  float* room(at::Tensor& buffer, std::size_t floats) const;

  at::Device device_;
  at::Tensor partial_;
  at::Tensor sums_;
};

}  // namespace kvfs::model::cuda
