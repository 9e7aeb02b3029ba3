#include "engine/model/cuda/watch.h"

#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <bit>

#include "engine/model/cuda/forward.h"
#include "engine/prune/methods.h"

namespace kvfs::model::cuda {
namespace {

constexpr std::size_t kScratchFloats = std::size_t{1} << 26;

void check(cudaError_t error) {
  if (error != cudaSuccess) throw ForwardError(error);
}
cudaStream_t stream() { return c10::cuda::getCurrentCUDAStream(); }

std::int64_t row_of(HeadShape shape) {
  return (shape.heads + std::int64_t{2} * shape.kv_heads) * shape.width;
}

}  // namespace

QuerySums Watch::queries_of(int layer, HeadShape shape) const {
  const std::int64_t vectors = std::int64_t{layer} * shape.heads * shape.width;
  return {queries.origin + vectors, queries.first + vectors,
          queries.second + vectors * shape.width};
}

void Watch::see_queries(int layer, const float* qkv, int position, int rows,
                        HeadShape shape) const {
  if (queries.origin == nullptr) return;
  const int skipped = std::clamp(prune::kSinks - position, 0, rows);
  const bool first = position + skipped == prune::kSinks;
  check(add_queries(qkv + skipped * row_of(shape), rows - skipped, shape, first,
                    queries_of(layer, shape), stream()));
}

float* RowAttention::room(at::Tensor& buffer, std::size_t floats) const {
  if (!buffer.defined() || buffer.numel() < static_cast<std::int64_t>(floats)) {
    buffer = at::Tensor();  // given back first: the two need not fit side by side
    buffer = at::empty({static_cast<std::int64_t>(std::bit_ceil(floats))},
                       at::TensorOptions().dtype(at::kFloat).device(device_));
  }
  return buffer.data_ptr<float>();
}

template <class T>
void RowAttention::run(int layer, const float* qkv, const RowPlace* places, int rows,
                       int most_pages, HeadShape shape, const AttentionRule& rule, KvPlace kv,
                       T* out, const Watch* watch) {
  if (rows == 0) return;
  const std::size_t of_row = attention_scratch(1, most_pages, shape);
  const int at_once = static_cast<int>(
      std::clamp<std::size_t>(kScratchFloats / of_row, 1, static_cast<std::size_t>(rows)));
  float* partial = room(partial_, of_row * static_cast<std::size_t>(at_once));
  const bool weighs = watch != nullptr && watch->weights != nullptr;
  WeightRule kept;
  if (weighs) {
    kept = watch->rule;
    kept.sums = room(sums_, weight_scratch(at_once, most_pages, shape));
  }
  for (int begin = 0; begin < rows; begin += at_once) {
    const int some = std::min(at_once, rows - begin);
    const float* queries = qkv + begin * row_of(shape);
    check(attention(queries, places + begin, some, most_pages, shape, rule, kv, partial,
                    out + std::int64_t{begin} * shape.heads * shape.width, stream(), 0, kept));
    if (!weighs) continue;
    float* weights =
        watch->weights + std::int64_t{layer} * watch->pages * shape.heads * kBlockTokens;
    check(attention_weights<KvOf<T>>(queries, places + begin, some, most_pages, shape, rule, kv,
                                     kept, partial, weights, stream()));
  }
}

template void RowAttention::run(int, const float*, const RowPlace*, int, int, HeadShape,
                                const AttentionRule&, KvPlace, float*, const Watch*);
template void RowAttention::run(int, const float*, const RowPlace*, int, int, HeadShape,
                                const AttentionRule&, KvPlace, __nv_bfloat16*, const Watch*);
template void RowAttention::run(int, const float*, const RowPlace*, int, int, HeadShape,
                                const AttentionRule&, KvPlace, __half*, const Watch*);

}  // namespace kvfs::model::cuda
