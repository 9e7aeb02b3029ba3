// Causal attention over pages of 256 positions, whole or sparse, in two kernels.
//
// attend_page: a block takes a row, a KV head with its group of query heads, and a page, and writes
// for each query its greatest score m, the sum l of exp(score − m) and the sum of exp(score − m) ·
// value. merge_pages: a block a row and query head joins these, pages in ascending order.
//
// A query's arithmetic depends on its own vector and the entries it sees alone: the score of a key
// is one chain of fused multiply-adds; m and l are a fixed tree over the page's 256 slots (what is
// not there, or not seen, gives nothing); a value dimension is summed in eight fixed runs of slots,
// joined in order. So a page that was pruned, saved and brought back gives the same bits, however
// it is kept.

#include "engine/model/cuda/kernels.h"
#include "engine/model/cuda/numbers.cuh"
#include "engine/model/cuda/page_entries.cuh"

namespace kvfs::model::cuda {
namespace {

constexpr int kPageTokens = 256;
constexpr int kThreads = kPageTokens;
constexpr int kRuns = kThreads / 32;  // a warp sums the values of a run of slots
constexpr int kMergeThreads = 128;

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

template <class T>
__device__ float score_of(const float* q, const T* key, const HeadShape& shape,
                          const AttentionRule& rule) {
  float score = 0.0F;
  for (int d = 0; d < shape.width; d += 8) {
    float k[8];
    load8(key + d, k);
#pragma unroll
    for (int i = 0; i < 8; ++i) score = fmaf(q[d + i], k[i], score);
  }
  return rule.cap == 0.0F ? score : rule.cap * tanhf(score / rule.cap);
}

// Whether a launch is about a row.
__device__ bool wanted(std::uint32_t only, std::int64_t row) {
  return only == 0 || (only >> row & 1U) != 0;
}

__device__ bool sees(const AttentionRule& rule, int position, int other) {
  return other <= position && (rule.window == 0 || other > position - rule.window);
}

// Whether the softmax that kept weights are of is over an entry, if it is seen.
__device__ bool counts(const WeightRule& kept, int position) {
  return position < kept.sinks || position >= kept.after ||
         (position >= kept.begin && position < kept.end);
}

// A query into shared memory, scaled.
__device__ void take_query(const float* qkv, std::int64_t row, int head, const HeadShape& shape,
                           float scale, float* q) {
  const std::int64_t qkv_width = std::int64_t{shape.heads + 2 * shape.kv_heads} * shape.width;
  __syncthreads();  // the one before is done with
  for (int d = static_cast<int>(threadIdx.x); d < shape.width; d += kThreads) {
    q[d] = qkv[row * qkv_width + std::int64_t{head} * shape.width + d] * scale;
  }
  __syncthreads();
}

template <class T>
__global__ void attend_page(const float* qkv, const RowPlace* places, int most_pages,
                            HeadShape shape, AttentionRule rule, KvPlace kv, std::uint32_t only,
                            WeightRule watched, float* partial) {
  extern __shared__ float shared[];
  float* q = shared;                            // [width]
  float* runs = q + shape.width;                // [kRuns][width]
  float* weights = runs + kRuns * shape.width;  // [slot]
  float* scratch = weights + kPageTokens;       // [kThreads / 32]
  auto* entry_at =
      reinterpret_cast<std::int32_t*>(scratch + kThreads / 32);  // [slot]; −1: none seen

  const int group = shape.heads / shape.kv_heads;
  const int page = static_cast<int>(blockIdx.x);
  const std::int64_t row = blockIdx.y;
  const int kv_head = static_cast<int>(blockIdx.z);
  const int thread = static_cast<int>(threadIdx.x);
  const RowPlace place = places[row];
  const int page_begin = page * kPageTokens;
  if (place.position < page_begin || !wanted(only, row)) return;

  const auto entries = entries_of<T>(kv.pages[place.first_page + page], kv, shape, kv_head);
  const int slot = thread < entries.count ? entries.slot(thread) : kPageTokens;
  const bool seen = slot < kPageTokens && sees(rule, place.position, page_begin + slot);
  entry_at[thread] = -1;
  __syncthreads();
  if (seen) entry_at[slot] = thread;
  const int begin = thread / 32 * 32;  // this warp's run of slots

  for (int in_group = 0; in_group < group; ++in_group) {
    const int head = kv_head * group + in_group;
    take_query(qkv, row, head, shape, rule.scale, q);
    if (seen)
      weights[slot] = score_of(q, entries.keys + std::int64_t{thread} * shape.width, shape, rule);
    __syncthreads();
    const bool there = entry_at[thread] >= 0;
    const float score = there ? weights[thread] : -INFINITY;
    const float most = tree_max(score, scratch);
    const float weight = there ? expf(score - most) : 0.0F;
    const float sum = tree_sum(weight, scratch);
    const bool apart = watched.highest;
    const float counted =
        apart ? tree_sum(counts(watched, page_begin + thread) ? weight : 0.0F, scratch) : sum;
    weights[thread] = weight;
    __syncthreads();

    for (int d = thread % 32; d < shape.width; d += 32) {
      float value = 0.0F;
      for (int j = begin; j < begin + 32; ++j) {
        // What the query does not see adds nothing, be it infinite.
        if (weights[j] != 0.0F) {
          value =
              fmaf(weights[j],
                   to_float(entries.values[std::int64_t{entry_at[j]} * shape.width + d]), value);
        }
      }
      runs[thread / 32 * shape.width + d] = value;
    }
    __syncthreads();
    float* out =
        partial + ((row * shape.heads + head) * most_pages + page) * partial_stride(shape.width);
    for (int d = thread; d < shape.width; d += kThreads) {
      float value = runs[d];
      for (int run = 1; run < kRuns; ++run) value += runs[run * shape.width + d];
      out[2 + d] = value;
    }
    if (thread == 0) {
      out[0] = most;
      out[1] = sum;
      if (apart) watched.sums[(row * shape.heads + head) * (most_pages + 2) + 2 + page] = counted;
    }
  }
}

// A block a row and head.
template <class T>
__global__ void merge_pages(const RowPlace* places, int most_pages, HeadShape shape,
                            std::uint32_t only, const float* partial, T* out) {
  const std::int64_t row = blockIdx.x;
  if (!wanted(only, row)) return;
  const std::int64_t head = blockIdx.y;
  const int pages = places[row].position / kPageTokens + 1;
  const float* first =
      partial + (row * shape.heads + head) * most_pages * partial_stride(shape.width);
  for (int d = static_cast<int>(threadIdx.x); d < shape.width; d += kMergeThreads) {
    const float* mine = first;
    float most = -INFINITY;
    float sum = 0.0F;
    float value = 0.0F;
    for (int page = 0; page < pages; ++page, mine += partial_stride(shape.width)) {
      if (mine[0] == -INFINITY) continue;  // it sees nothing there
      const float now = fmaxf(most, mine[0]);
      const float old_scale = expf(most - now);
      const float new_scale = expf(mine[0] - now);
      sum = fmaf(sum, old_scale, mine[1] * new_scale);
      value = fmaf(value, old_scale, mine[2 + d] * new_scale);
      most = now;
    }
    out[(row * shape.heads + head) * shape.width + d] = from_float<T>(value / sum);
  }
}

// A thread a row and head: what its scores are less, and the sum that divides, in its watch's sums.
__global__ void find_totals(const RowPlace* places, int rows, int most_pages, HeadShape shape,
                            WeightRule watched, const float* partial) {
  const int at = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (at >= rows * shape.heads) return;
  float* sums = watched.sums + std::int64_t{at} * (most_pages + 2);
  const float* mine = partial + std::int64_t{at} * most_pages * partial_stride(shape.width);
  const int pages = places[at / shape.heads].position / kPageTokens + 1;
  float most = -INFINITY;
  float sum = 0.0F;
  for (int page = 0; page < pages; ++page, mine += partial_stride(shape.width)) {
    const float part = watched.highest ? sums[2 + page] : mine[1];
    if (mine[0] == -INFINITY || part == 0.0F) continue;
    const float now = fmaxf(most, mine[0]);
    sum = fmaf(sum, expf(most - now), part * expf(mine[0] - now));
    most = now;
  }
  sums[0] = most;
  sums[1] = sum;
}

// A block a page and KV head, for all rows, one after the other.
template <class T>
__global__ void weigh_page(const float* qkv, const RowPlace* places, int rows, HeadShape shape,
                           AttentionRule rule, KvPlace kv, WeightRule watched, int most_pages,
                           float* weights) {
  extern __shared__ float q[];
  const int group = shape.heads / shape.kv_heads;
  const int page = static_cast<int>(blockIdx.x);
  const int kv_head = static_cast<int>(blockIdx.y);
  const int thread = static_cast<int>(threadIdx.x);
  const int page_begin = page * kPageTokens;
  if (watched.highest && (watched.end <= page_begin || watched.begin >= page_begin + kPageTokens))
    return;
  const auto entries = entries_of<T>(kv.pages[places[0].first_page + page], kv, shape, kv_head);
  const int slot = thread < entries.count ? entries.slot(thread) : kPageTokens;
  const int position = page_begin + slot;
  const bool asked = slot < kPageTokens &&
                     (!watched.highest || (position >= watched.begin && position < watched.end));
  float* mine = weights + std::int64_t{page} * shape.heads * kPageTokens;  // [heads][slot]

  for (int in_group = 0; in_group < group; ++in_group) {
    const int head = kv_head * group + in_group;
    for (int row = 0; row < rows; ++row) {
      take_query(qkv, row, head, shape, rule.scale, q);
      if (!asked || !sees(rule, places[row].position, position)) continue;
      const float score =
          score_of(q, entries.keys + std::int64_t{thread} * shape.width, shape, rule);
      const float* sums =
          watched.sums + (std::int64_t{row} * shape.heads + head) * (most_pages + 2);
      const float weight = sums[1] > 0.0F ? expf(score - sums[0]) / sums[1] : 0.0F;
      float& to = mine[head * kPageTokens + slot];
      to = watched.highest ? fmaxf(to, weight) : to + weight;
    }
  }
}

}  // namespace

std::size_t attention_scratch(int rows, int most_pages, HeadShape shape) {
  return static_cast<std::size_t>(rows) * static_cast<std::size_t>(shape.heads) *
         static_cast<std::size_t>(most_pages) *
         static_cast<std::size_t>(partial_stride(shape.width));
}

template <class T>
cudaError_t attention(const float* qkv, const RowPlace* places, int rows, int most_pages,
                      HeadShape shape, const AttentionRule& rule, KvPlace kv, float* partial,
                      T* out, cudaStream_t stream, std::uint32_t only, const WeightRule& watched) {
  const auto floats = static_cast<unsigned>((kRuns + 1) * shape.width + 2 * kPageTokens + kRuns);
  const dim3 grid(static_cast<unsigned>(most_pages), static_cast<unsigned>(rows),
                  static_cast<unsigned>(shape.kv_heads));
  attend_page<KvOf<T>><<<grid, kThreads, floats * sizeof(float), stream>>>(
      qkv, places, most_pages, shape, rule, kv, only, watched, partial);
  if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess) return error;
  const dim3 heads(static_cast<unsigned>(rows), static_cast<unsigned>(shape.heads));
  merge_pages<T>
      <<<heads, kMergeThreads, 0, stream>>>(places, most_pages, shape, only, partial, out);
  return cudaGetLastError();
}

std::size_t weight_scratch(int rows, int most_pages, HeadShape shape) {
  return static_cast<std::size_t>(rows) * static_cast<std::size_t>(shape.heads) *
         (static_cast<std::size_t>(most_pages) + 2);
}

template <class T>
cudaError_t attention_weights(const float* qkv, const RowPlace* places, int rows, int most_pages,
                              HeadShape shape, const AttentionRule& rule, KvPlace kv,
                              const WeightRule& watched, const float* partial, float* weights,
                              cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>((rows * shape.heads + kThreads - 1) / kThreads);
  find_totals<<<blocks, kThreads, 0, stream>>>(places, rows, most_pages, shape, watched, partial);
  if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess) return error;
  const dim3 grid(static_cast<unsigned>(most_pages), static_cast<unsigned>(shape.kv_heads));
  const auto bytes = static_cast<unsigned>(shape.width) * sizeof(float);
  weigh_page<T><<<grid, kThreads, bytes, stream>>>(qkv, places, rows, shape, rule, kv, watched,
                                                   most_pages, weights);
  return cudaGetLastError();
}

#define KVFS_FOR(T)                                                                       \
  template cudaError_t attention(const float*, const RowPlace*, int, int, HeadShape,      \
                                 const AttentionRule&, KvPlace, float*, T*, cudaStream_t, \
                                 std::uint32_t, const WeightRule&);
KVFS_FOR(float)
KVFS_FOR(__nv_bfloat16)
KVFS_FOR(__half)
#undef KVFS_FOR
#define KVFS_FOR(T)                                                                             \
  template cudaError_t attention_weights<T>(const float*, const RowPlace*, int, int, HeadShape, \
                                            const AttentionRule&, KvPlace, const WeightRule&,   \
                                            const float*, float*, cudaStream_t);
KVFS_FOR(float)
KVFS_FOR(__nv_bfloat16)
#undef KVFS_FOR

}  // namespace kvfs::model::cuda
