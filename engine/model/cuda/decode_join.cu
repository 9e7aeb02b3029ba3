// The second half of the generated path's attention: a head's pages, put together. See
// decode_attention.cu.

#include "engine/model/cuda/chain.cuh"
#include "engine/model/cuda/decode.h"

namespace kvfs::model::cuda {
namespace {

constexpr int kJoinThreads = 128;
constexpr unsigned kAll = 0xffffffffU;

// Joins a head's pages: a block a head and row. A thread adds four dimensions over one of kRuns
// equal runs of pages, ascending; the runs are added in order.
template <int kWidth, class T>
__global__ void __launch_bounds__(kJoinThreads)
    join_kernel(const RowPlace* places, HeadShape shape, AttentionScratch scratch, T* out) {
  constexpr int kQuads = kWidth / 4;
  constexpr int kRuns = kJoinThreads / kQuads;
  constexpr int kBatch = 8;  // pages whose loads are in flight
  constexpr int kWarps = kJoinThreads / 32;
  __shared__ float greatest[kWarps];
  __shared__ float4 values[kRuns][kQuads];
  __shared__ float totals[kRuns];
  const int thread = static_cast<int>(threadIdx.x);
  const int head = static_cast<int>(blockIdx.x);
  const int row = static_cast<int>(blockIdx.y);
  const int quad = thread % kQuads;
  const int run = thread / kQuads;
  const int pages = places[row].position / kPageTokens + 1;
  const int a_run = (pages + kRuns - 1) / kRuns;
  const int end = min(pages, (run + 1) * a_run);
  const std::int64_t slot = (std::int64_t{row} * shape.heads + head) * scratch.pages;
  const float2* sums = scratch.sums + slot;
  const float* from = scratch.values + slot * kWidth + quad * 4;
  let_next_begin();
  wait_for_previous();

  float4 v[kBatch];
  float2 of[kBatch];
  const auto load = [&](int begin) {
#pragma unroll
    for (int j = 0; j < kBatch; ++j) {
      const std::int64_t page = min(begin + j, pages - 1);
      v[j] = __ldcg(reinterpret_cast<const float4*>(from + page * kWidth));
      of[j] = __ldcg(&sums[page]);
    }
  };
  load(run * a_run);
  float most = -INFINITY;
  for (int page = thread; page < pages; page += kJoinThreads) {
    most = fmaxf(most, __ldcg(&sums[page]).x);
  }
  for (int d = 16; d > 0; d /= 2) most = fmaxf(most, __shfl_xor_sync(kAll, most, d));
  if (thread % 32 == 0) greatest[thread / 32] = most;
  __syncthreads();
#pragma unroll
  for (int w = 0; w < kWarps; ++w) most = fmaxf(most, greatest[w]);

  float4 value{0.0F, 0.0F, 0.0F, 0.0F};
  float total = 0.0F;
  for (int begin = run * a_run; begin < end; begin += kBatch) {
    if (begin > run * a_run) load(begin);
#pragma unroll
    for (int j = 0; j < kBatch; ++j) {
      const float weight = begin + j < end ? exp2f(of[j].x - most) : 0.0F;
      total = fmaf(of[j].y, weight, total);
      value.x = fmaf(v[j].x, weight, value.x);
      value.y = fmaf(v[j].y, weight, value.y);
      value.z = fmaf(v[j].z, weight, value.z);
      value.w = fmaf(v[j].w, weight, value.w);
    }
  }
  values[run][quad] = value;
  if (quad == 0) totals[run] = total;
  __syncthreads();
  if (run != 0) return;
#pragma unroll
  for (int r = 1; r < kRuns; ++r) {
    const float4 more = values[r][quad];
    value.x += more.x, value.y += more.y, value.z += more.z, value.w += more.w;
    total += totals[r];
  }
  *reinterpret_cast<uint2*>(out + (std::int64_t{row} * shape.heads + head) * kWidth + quad * 4) = {
      pack_of<T>(__fdividef(value.x, total), __fdividef(value.y, total)),
      pack_of<T>(__fdividef(value.z, total), __fdividef(value.w, total))};
}

}  // namespace

cudaError_t join_pages(const StepRows& step, HeadShape shape, AttentionScratch scratch, void* out,
                       cudaStream_t stream, bool fp16) {
  const dim3 grid(static_cast<unsigned>(shape.heads), static_cast<unsigned>(step.rows));
  return for_activations(fp16, [&]<class T>(T*) {
    const auto with = [&]<int kWidth>() {
      return launch_chained<join_kernel<kWidth, T>>(grid, kJoinThreads, 0, stream, step.places,
                                                    shape, scratch, static_cast<T*>(out));
    };
    return shape.width == 64 ? with.template operator()<64>() : with.template operator()<128>();
  });
}

}  // namespace kvfs::model::cuda
