// Causal attention over pages of 256 positions, in two kernels.
//
// attend_page: a block takes some rows (one when generating, more when reading, which share the
// page's keys and values), one KV head with its group of query heads, and one page, and writes for
// each query its greatest score m, the sum l of exp(score − m) and the sum of exp(score − m) ·
// value. merge_pages: a block a row and query head joins these, pages in ascending order.
//
// A query's arithmetic depends on its own vector and its pages alone: the score of key j is one
// chain of fused multiply-adds; m and l are a fixed tree over the page's 256 places (places past
// the query give nothing); a value dimension is summed in kSplits fixed runs of places, joined in
// order.

#include "engine/model/cuda/kernels.h"
#include "engine/model/cuda/numbers.cuh"

namespace kvfs::model::cuda {
namespace {

constexpr int kPageTokens = 256;
constexpr int kThreads = kPageTokens;
constexpr int kMostQueries = 32;  // rows · group of one block
constexpr int kTile = 4;          // queries that share a load of a value

// partial[row][head][page]: m, l, then width sums.
__host__ __device__ std::int64_t partial_stride(int width) { return width + 2; }

__device__ float tree_max(float value, float* scratch) {
  for (int d = 16; d > 0; d /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffU, value, d));
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
  __syncthreads();
  value = scratch[0];
  for (int i = 1; i < kThreads / 32; ++i) value = fmaxf(value, scratch[i]);
  __syncthreads();
  return value;
}
__device__ float tree_sum(float value, float* scratch) {
  for (int d = 16; d > 0; d /= 2) value += __shfl_xor_sync(0xffffffffU, value, d);
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
  __syncthreads();
  value = scratch[0];
  for (int i = 1; i < kThreads / 32; ++i) value += scratch[i];
  __syncthreads();
  return value;
}

template <class T, int kWidth>
__global__ void attend_page(const float* qkv, const RowPlace* places, int rows, int rows_a_block,
                            int most_pages, HeadShape shape, KvPlace kv, float* partial) {
  extern __shared__ float shared[];
  const int group = shape.heads / shape.kv_heads;
  const int page_index = static_cast<int>(blockIdx.x);
  const int row_begin = static_cast<int>(blockIdx.y) * rows_a_block;
  const int row_count = min(rows_a_block, rows - row_begin);
  const int kv_head = static_cast<int>(blockIdx.z);
  const int queries = row_count * group;
  const int thread = static_cast<int>(threadIdx.x);
  const int page_begin = page_index * kPageTokens;

  // Rows of one block belong to one sequence and ascend, so the last sees most.
  const RowPlace last = places[row_begin + row_count - 1];
  if (last.position < page_begin) return;
  const int visible = min(kPageTokens, last.position - page_begin + 1);
  const T* page = static_cast<const T*>(kv.pages[last.first_page + page_index]);
  const T* keys = page + kv.key_offset + std::int64_t{kv_head} * kPageTokens * kWidth;
  const T* values = page + kv.value_offset + std::int64_t{kv_head} * kPageTokens * kWidth;

  float* q = shared;                                              // [queries][kWidth]
  float* weights = q + rows_a_block * group * kWidth;             // [queries][256]
  float* scratch = weights + rows_a_block * group * kPageTokens;  // [8]; then [kTile][kThreads]
  const std::int64_t qkv_width = std::int64_t{shape.heads + 2 * shape.kv_heads} * kWidth;
  for (int i = thread; i < queries * kWidth; i += kThreads) {
    const int query = i / kWidth;
    const int row = row_begin + query / group;
    const int head = kv_head * group + query % group;
    q[i] = qkv[row * qkv_width + head * kWidth + i % kWidth] * rsqrtf(static_cast<float>(kWidth));
  }
  __syncthreads();

  if (thread < visible) {  // this thread's key, in registers, against every query
    float key[kWidth];
#pragma unroll
    for (int d = 0; d < kWidth; d += 8) load8(keys + thread * kWidth + d, &key[d]);
    for (int query = 0; query < queries; ++query) {
      float score = 0.0F;
#pragma unroll
      for (int d = 0; d < kWidth; ++d) score = fmaf(q[query * kWidth + d], key[d], score);
      weights[query * kPageTokens + thread] = score;
    }
  }
  __syncthreads();

  const std::int64_t stride = partial_stride(kWidth);
  for (int query = 0; query < queries; ++query) {
    const int row = row_begin + query / group;
    const int head = kv_head * group + query % group;
    const bool seen = page_begin + thread <= places[row].position;
    const float score = seen ? weights[query * kPageTokens + thread] : -INFINITY;
    const float most = tree_max(score, scratch);
    const float weight = seen ? expf(score - most) : 0.0F;
    const float sum = tree_sum(weight, scratch);
    weights[query * kPageTokens + thread] = weight;
    if (thread == 0) {
      float* out =
          partial + ((std::int64_t{row} * shape.heads + head) * most_pages + page_index) * stride;
      out[0] = most;
      out[1] = sum;
    }
  }
  __syncthreads();

  constexpr int kSplits = kThreads / kWidth;
  constexpr int kRun = kPageTokens / kSplits;
  const int dimension = thread % kWidth;
  const int split = thread / kWidth;
  const int end = min((split + 1) * kRun, visible);
  for (int first = 0; first < queries;
       first += kTile) {  // a value is loaded once for kTile queries
    float sums[kTile] = {};
    for (int j = split * kRun; j < end; ++j) {
      const float value = to_float(values[j * kWidth + dimension]);
#pragma unroll
      for (int i = 0; i < kTile; ++i) {
        const float weight = weights[min(first + i, queries - 1) * kPageTokens + j];
        // A place that the query does not see adds nothing, be its value infinite.
        if (weight != 0.0F) sums[i] = fmaf(weight, value, sums[i]);
      }
    }
#pragma unroll
    for (int i = 0; i < kTile; ++i) scratch[i * kThreads + thread] = sums[i];
    __syncthreads();
    for (int i = split; i < min(kTile, queries - first); i += kSplits) {
      float sum = scratch[i * kThreads + dimension];
      for (int s = 1; s < kSplits; ++s) sum += scratch[i * kThreads + s * kWidth + dimension];
      const int row = row_begin + (first + i) / group;
      const int head = kv_head * group + (first + i) % group;
      partial[((std::int64_t{row} * shape.heads + head) * most_pages + page_index) * stride + 2 +
              dimension] = sum;
    }
    __syncthreads();
  }
}

// A block a row and head, a thread a dimension.
template <class T, int kWidth>
__global__ void merge_pages(const RowPlace* places, int most_pages, HeadShape shape,
                            const float* partial, T* out) {
  const std::int64_t row = blockIdx.x;
  const std::int64_t head = blockIdx.y;
  const int dimension = static_cast<int>(threadIdx.x);
  const int pages = places[row].position / kPageTokens + 1;
  const float* mine = partial + (row * shape.heads + head) * most_pages * partial_stride(kWidth);
  float most = -INFINITY;
  float sum = 0.0F;
  float value = 0.0F;
  for (int page = 0; page < pages; ++page, mine += partial_stride(kWidth)) {
    const float now = fmaxf(most, mine[0]);
    const float old_scale = expf(most - now);
    const float new_scale = expf(mine[0] - now);
    sum = fmaf(sum, old_scale, mine[1] * new_scale);
    value = fmaf(value, old_scale, mine[2 + dimension] * new_scale);
    most = now;
  }
  out[(row * shape.heads + head) * kWidth + dimension] = from_float<T>(value / sum);
}

template <class T, int kWidth>
cudaError_t launch(const float* qkv, const RowPlace* places, int rows, int rows_a_block,
                   int most_pages, HeadShape shape, KvPlace kv, float* partial, T* out,
                   cudaStream_t stream) {
  const int queries = rows_a_block * shape.heads / shape.kv_heads;
  const auto bytes =
      static_cast<unsigned>(sizeof(float) * (queries * (kWidth + kPageTokens) + kTile * kThreads));
  if (bytes > 48 * 1024) {
    if (const cudaError_t error = cudaFuncSetAttribute(attend_page<T, kWidth>,
                                                       cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                       static_cast<int>(bytes));
        error != cudaSuccess) {
      return error;
    }
  }
  const dim3 grid(static_cast<unsigned>(most_pages),
                  static_cast<unsigned>((rows + rows_a_block - 1) / rows_a_block),
                  static_cast<unsigned>(shape.kv_heads));
  attend_page<T, kWidth><<<grid, kThreads, bytes, stream>>>(qkv, places, rows, rows_a_block,
                                                            most_pages, shape, kv, partial);
  if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess) return error;
  const dim3 heads(static_cast<unsigned>(rows), static_cast<unsigned>(shape.heads));
  merge_pages<T, kWidth><<<heads, kWidth, 0, stream>>>(places, most_pages, shape, partial, out);
  return cudaGetLastError();
}

}  // namespace

std::size_t attention_scratch(int rows, int most_pages, HeadShape shape) {
  return static_cast<std::size_t>(rows) * static_cast<std::size_t>(shape.heads) *
         static_cast<std::size_t>(most_pages) *
         static_cast<std::size_t>(partial_stride(shape.width));
}

template <class T>
cudaError_t attention(const float* qkv, const RowPlace* places, int rows, bool one_sequence,
                      int most_pages, HeadShape shape, KvPlace kv, float* partial, T* out,
                      cudaStream_t stream) {
  const int group = shape.heads / shape.kv_heads;
  const int rows_a_block = one_sequence && rows > 1 ? max(1, kMostQueries / group) : 1;
  if (shape.width == 64) {
    return launch<T, 64>(qkv, places, rows, rows_a_block, most_pages, shape, kv, partial, out,
                         stream);
  }
  return launch<T, 128>(qkv, places, rows, rows_a_block, most_pages, shape, kv, partial, out,
                        stream);
}

template cudaError_t attention(const float*, const RowPlace*, int, bool, int, HeadShape, KvPlace,
                               float*, float*, cudaStream_t);
template cudaError_t attention(const float*, const RowPlace*, int, bool, int, HeadShape, KvPlace,
                               float*, __nv_bfloat16*, cudaStream_t);

}  // namespace kvfs::model::cuda
