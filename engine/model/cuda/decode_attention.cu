// Attention of the generated path, over pages of 256 positions.
//
// A block takes one page of one KV head and all the queries that look at it: the group's heads of
// one row, or of all rows whose histories share the page. Four warps, for each tile of 16 queries,
// take 32 keys each of a half page, then of the other:
//
//   K, V [128][width] ─ cp.async, before the queries are known ─┐
//   q turned and scaled ─ shared memory ─ mma → scores [16 × 32] a warp
//   the greatest so far → weights ─ mma → sums [16 × width] a warp
//   the four warps' added in order → scratch; decode_join.cu joins a head's pages
//
// The page that holds the new position turns the new key, stores key and value, and uses what it
// stored. A query's arithmetic depends on its own vector and keys alone: it is a row of the tensor
// cores' tile, whose other rows may hold anything.

#include "engine/model/cuda/attention_tile.cuh"
#include "engine/model/cuda/decode.h"

namespace kvfs::model::cuda {
namespace {

constexpr unsigned kAll = 0xffffffffU;

// Shared memory, in bytes. Sums of the warps, [tiles][warps][queries][kPitch] floats, lie over the
// rest when that is done with.
template <int kWidth, int kTiles = 1>
struct Layout {
  static constexpr int kRow = kWidth * 2;
  static constexpr int kKept = kWidth == 64 ? 2 * kHalfPage : kHalfPage;  // keys at a time
  static constexpr int kKeys = 0;
  static constexpr int kValues = kKeys + kKept * kRow;
  static constexpr int kQueries = kValues + kKept * kRow;  // of each tile high, then low parts
  static constexpr int kPitch = kWidth + 8;
  static constexpr int kFetched = kQueries + kTiles * 2 * kTileQueries * kRow;
  static constexpr int kSums = kTiles * kKeyWarps * kTileQueries * kPitch * 4;
  static constexpr int kBytes = kFetched > kSums ? kFetched : kSums;
};

struct Task {
  const float* qkv;
  const float2* turns;
  const RowPlace* places;
  const PageWork* work;
  HeadShape shape;
  KvPlace kv;
  AttentionScratch scratch;

  __device__ int group() const { return shape.heads / shape.kv_heads; }
  __device__ std::int64_t qkv_width() const {
    return std::int64_t{shape.heads + 2 * shape.kv_heads} * shape.width;
  }
  __device__ std::int64_t slot(int row, int head) const {  // of page 0
    return (std::int64_t{row} * shape.heads + head) * scratch.pages;
  }
};

// A block's page of one KV head.
struct Place {
  int row;  // the first of those that see it
  int kv_head;
  int newest;  // the row's position, from the page's beginning; ≥ 256: the page is whole
  __nv_bfloat16* keys;
  __nv_bfloat16* values;
};

struct Turned {
  float low[4];
  float high[4];
};
// Elements d … d + 3 and half a head further on, of the head at x.
template <int kWidth>
__device__ __forceinline__ Turned turned(const Task& task, int row, const float* x, int d) {
  constexpr int kHalf = kWidth / 2;
  const float4 a = __ldcg(reinterpret_cast<const float4*>(x + d));
  const float4 b = __ldcg(reinterpret_cast<const float4*>(x + d + kHalf));
  const auto* by = reinterpret_cast<const float4*>(task.turns + row * kHalf + d);
  const float4 first = __ldcg(by);  // cosine, sine, cosine, sine
  const float4 then = __ldcg(by + 1);
  return {{a.x * first.x - b.x * first.y, a.y * first.z - b.y * first.w,
           a.z * then.x - b.z * then.y, a.w * then.z - b.w * then.w},
          {b.x * first.x + a.x * first.y, b.y * first.z + a.y * first.w,
           b.z * then.x + a.z * then.y, b.w * then.z + a.w * then.w}};
}

// Queries of a page: rows ascending, heads ascending in each.
template <int kWidth>
__device__ __forceinline__ void stage_query(const Task& task, const int* rows, int kv_head,
                                            int query, int d, int place, std::uint8_t* queries) {
  // Weights are powers of two.
  const float scale = rsqrtf(static_cast<float>(kWidth)) * 1.44269504088896340736F;
  const int row = rows[query / task.group()];
  const int head = kv_head * task.group() + query % task.group();
  const Turned q = turned<kWidth>(task, row, task.qkv + row * task.qkv_width() + head * kWidth, d);
  std::uint8_t* tile = queries + place / kTileQueries * (2 * kTileQueries * kWidth * 2);
  const int in_tile = place % kTileQueries;
  std::uint8_t* low_parts = tile + kTileQueries * kWidth * 2;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float* x = half == 0 ? q.low : q.high;
    const Halves a = halve(x[0] * scale, x[1] * scale);
    const Halves b = halve(x[2] * scale, x[3] * scale);
    const int i = d + half * (kWidth / 2);
    *quad<kWidth>(tile, in_tile, i) = {a.high, b.high};
    *quad<kWidth>(low_parts, in_tile, i) = {a.low, b.low};
  }
}

// Stores four elements of the newest key and their four partners, or of the newest value, in the
// page, and in shared memory where that half page is there; thread of kWidth / 8 + kWidth / 4.
template <int kWidth>
__device__ __forceinline__ void store_newest(const Task& task, const Place& place, int thread,
                                             std::uint8_t* shared) {
  constexpr int kHalf = kWidth / 2;
  const float* mine = task.qkv + place.row * task.qkv_width();
  const float* k = mine + (task.shape.heads + place.kv_head) * kWidth;
  const auto put = [&](__nv_bfloat16* side, int base, int i, const float* x) {
    const uint2 packed{pack(x[0], x[1]), pack(x[2], x[3])};
    *reinterpret_cast<uint2*>(side + place.newest * kWidth + i) = packed;
    if (place.newest < Layout<kWidth>::kKept)
      *quad<kWidth>(shared + base, place.newest, i) = packed;
  };
  if (thread < kHalf / 4) {
    const int d = thread * 4;
    const Turned key = turned<kWidth>(task, place.row, k, d);
    put(place.keys, Layout<kWidth>::kKeys, d, key.low);
    put(place.keys, Layout<kWidth>::kKeys, d + kHalf, key.high);
  } else {
    const int d = (thread - kHalf / 4) * 4;
    const float4 value =
        __ldcg(reinterpret_cast<const float4*>(k + task.shape.kv_heads * kWidth + d));
    const float x[4] = {value.x, value.y, value.z, value.w};
    put(place.values, Layout<kWidth>::kValues, d, x);
  }
}

// Half a page's keys or values; zeros past the newest, which comes from elsewhere unless `stored`.
template <int kWidth, int kThreads>
__device__ __forceinline__ void fetch_half(const __nv_bfloat16* side, int half, int newest,
                                           bool stored, std::uint8_t* to) {
  constexpr int kPieces = kWidth / 8;
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < kHalfPage * kPieces; i += kThreads) {
    const int key = half * kHalfPage + i / kPieces;
    if (key == newest && !stored) continue;
    copy16(to + at<kWidth>(key % Layout<kWidth>::kKept, i % kPieces),
           side + key * kWidth + i % kPieces * 8, key <= newest);
  }
}

// A warp's running result for 16 queries: of lane 4g + t, queries g and g + 8.
template <int kWidth>
struct Running {
  float most[2] = {-INFINITY, -INFINITY};
  float total[2] = {};
  float sums[kWidth / 8][4] = {};
};

// Scores → weights: those past `last` are none; greatest [warps][queries], of all four warps.
template <int kWidth>
__device__ __forceinline__ void weights_of(float (&c)[4][4], const float (*greatest)[kTileQueries],
                                           Running<kWidth>& run) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float most = run.most[half];
#pragma unroll
    for (int w = 0; w < kKeyWarps; ++w) most = fmaxf(most, greatest[w][lane / 4 + 8 * half]);
    const float scale = exp2f(run.most[half] - most);
    run.most[half] = most;
    run.total[half] *= scale;
#pragma unroll
    for (int n = 0; n < kWidth / 8; ++n) {
      run.sums[n][2 * half] *= scale;
      run.sums[n][2 * half + 1] *= scale;
    }
#pragma unroll
    for (int n = 0; n < 4; ++n) {
#pragma unroll
      for (int i = 2 * half; i < 2 * half + 2; ++i) {
        c[n][i] = exp2f(c[n][i] - most);
        run.total[half] += c[n][i];
      }
    }
  }
}

// Masks a warp's scores and leaves its queries' greatest.
__device__ __forceinline__ void mask(float (&c)[4][4], int first_key, int newest,
                                     float (*greatest)[kTileQueries]) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32 % kKeyWarps;
  const int key = first_key + warp * kWarpKeys + lane % 4 * 2;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float most = -INFINITY;
#pragma unroll
    for (int n = 0; n < 4; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float& score = c[n][2 * half + i];
        if (key + n * 8 + i > newest) score = -INFINITY;
        most = fmaxf(most, score);
      }
    }
    most = fmaxf(most, __shfl_xor_sync(kAll, most, 1));
    most = fmaxf(most, __shfl_xor_sync(kAll, most, 2));
    if (lane % 4 == 0) greatest[warp][lane / 4 + 8 * half] = most;
  }
}

// The four warps' results, added in order, to scratch. queries: of all tiles, of a page's count
// from `first` on.
template <int kWidth, int kTiles>
__device__ __forceinline__ void put_partial(const Task& task, const Place& place, const int* rows,
                                            int page, int first, int queries, Running<kWidth>& run,
                                            float* sums) {
  constexpr int kThreads = 32 * kKeyWarps * kTiles;
  constexpr int kPitch = Layout<kWidth>::kPitch;
  __shared__ float totals[kTiles][kKeyWarps][kTileQueries];
  __shared__ float greatest[kTiles][kTileQueries];
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  const int warp = thread / 32 % kKeyWarps;
  const int tile = thread / 32 / kKeyWarps;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int query = lane / 4 + 8 * half;
    float total = run.total[half];
    total += __shfl_xor_sync(kAll, total, 1);
    total += __shfl_xor_sync(kAll, total, 2);
    if (tile * kTileQueries + query >= queries) continue;
    if (lane % 4 == 0) {
      totals[tile][warp][query] = total;
      if (warp == 0) greatest[tile][query] = run.most[half];
    }
    float* mine = sums + ((tile * kKeyWarps + warp) * kTileQueries + query) * kPitch + lane % 4 * 2;
#pragma unroll
    for (int n = 0; n < kWidth / 8; ++n) {
      *reinterpret_cast<float2*>(mine + n * 8) = {run.sums[n][2 * half], run.sums[n][2 * half + 1]};
    }
  }
  __syncthreads();
  for (int i = thread; i < queries * (kWidth / 4); i += kThreads) {
    const int of = i / (kWidth / 4) / kTileQueries;
    const int query = i / (kWidth / 4) % kTileQueries;
    const int d = i % (kWidth / 4) * 4;
    float4 value{0.0F, 0.0F, 0.0F, 0.0F};
    float total = 0.0F;
#pragma unroll
    for (int w = 0; w < kKeyWarps; ++w) {
      const float4 more = *reinterpret_cast<const float4*>(
          sums + ((of * kKeyWarps + w) * kTileQueries + query) * kPitch + d);
      value.x += more.x, value.y += more.y, value.z += more.z, value.w += more.w;
      total += totals[of][w][query];
    }
    const int nth = first + of * kTileQueries + query;
    const std::int64_t slot =
        task.slot(rows[nth / task.group()], place.kv_head * task.group() + nth % task.group()) +
        page;
    *reinterpret_cast<float4*>(task.scratch.values + slot * kWidth + d) = value;
    if (d == 0) task.scratch.sums[slot] = {greatest[of][query], total};
  }
}

// That fit a multiprocessor, as the registers must allow.
template <int kWidth, int kTiles>
constexpr int kBlocks = kTiles > 1     ? 1
                        : kWidth == 64 ? 3
                                       : 2;

template <int kWidth, int kTiles>
__global__ void __launch_bounds__(32 * kKeyWarps * kTiles, kBlocks<kWidth, kTiles>)
    attend_kernel(const Task task, int first_work) {
  using Here = Layout<kWidth, kTiles>;
  constexpr int kThreads = 32 * kKeyWarps * kTiles;
  constexpr bool kWhole = Here::kKept == kPageTokens;
  extern __shared__ __align__(128) std::uint8_t shared[];
  __shared__ float greatest[kTiles][kKeyWarps][kTileQueries];
  __shared__ int rows[kMaxBatch];
  const int thread = static_cast<int>(threadIdx.x);
  const int tile = thread / 32 / kKeyWarps;
  const PageWork work = task.work[first_work + static_cast<int>(blockIdx.x)];
  if (work.rows == 0) {
    wait_for_previous();  // as every block of a chained kernel
    return;
  }
  const int row = __ffs(static_cast<int>(work.rows)) - 1;
  const RowPlace at_row = task.places[row];
  auto* page = static_cast<__nv_bfloat16*>(task.kv.pages[at_row.first_page + work.page]);
  const int kv_head = static_cast<int>(blockIdx.y);
  const std::int64_t of_head = std::int64_t{kv_head} * kPageTokens * kWidth;
  const Place place{row, kv_head, at_row.position - work.page * kPageTokens,
                    page + task.kv.key_offset + of_head, page + task.kv.value_offset + of_head};
  const int halves = place.newest < kHalfPage ? 1 : 2;
  const auto fetch = [&](const __nv_bfloat16* side, int half, bool stored) {
    fetch_half<kWidth, kThreads>(side, half, place.newest, stored,
                                 shared + (side == place.keys ? Here::kKeys : Here::kValues));
  };
  const auto fetch_first = [&](bool stored) {
    for (int half = 0; half < (kWhole ? halves : 1); ++half) {
      fetch(place.keys, half, stored);
      fetch(place.values, half, stored);
    }
    close_copies();
  };
  if (thread < kMaxBatch && (work.rows >> thread & 1U) != 0) {
    rows[__popc(work.rows & ((1U << thread) - 1U))] = thread;
  }
  fetch_first(false);
  let_next_begin();
  wait_for_previous();
  __syncthreads();  // rows[] are known

  const int count = __popc(work.rows) * task.group();
  for (int first = 0; first < count; first += kTiles * kTileQueries) {
    if (first > 0) {
      __syncthreads();
      fetch_first(true);
    }
    constexpr int kQuads = kWidth / 8;  // of half a head
    const int queries = min(kTiles * kTileQueries, count - first);
    const int staged = queries * kQuads;
    const bool busy = tile * kTileQueries < queries;  // of a whole warp
    const int stored = first == 0 && place.newest < kPageTokens ? kQuads + kWidth / 4 : 0;
    for (int i = thread; i < staged + stored; i += kThreads) {
      if (i < staged) {
        stage_query<kWidth>(task, rows, kv_head, first + i / kQuads, i % kQuads * 4, i / kQuads,
                            shared + Here::kQueries);
      } else {
        store_newest<kWidth>(task, place, i - staged, shared);
      }
    }
    Running<kWidth> run;
    for (int half = 0; half < halves; ++half) {
      const int from = (kWhole ? half : 0) * kHalfPage * Here::kRow;
      const bool refetched = !kWhole && half == 1;
      if (refetched) {
        await_copies<1>();  // keys; values are still on their way
      } else {
        await_copies<0>();
      }
      __syncthreads();
      float c[4][4] = {};
      if (busy) {
        score<kWidth>(shared + Here::kKeys + from,
                      shared + Here::kQueries + tile * 2 * kTileQueries * Here::kRow, c);
        mask(c, half * kHalfPage, place.newest, greatest[tile]);
      }
      if (refetched) await_copies<0>();
      __syncthreads();
      const bool more = !kWhole && half + 1 < halves;
      if (more) {
        fetch(place.keys, 1, true);
        close_copies();
      }
      if (busy) {
        weights_of<kWidth>(c, greatest[tile], run);
        weigh<kWidth>(shared + Here::kValues + from, c, run.sums);
      }
      if (more) {
        __syncthreads();
        fetch(place.values, 1, true);
        close_copies();
      }
    }
    __syncthreads();
    put_partial<kWidth, kTiles>(task, place, rows, work.page, first, queries, run,
                                reinterpret_cast<float*>(shared));
  }
}

template <int kWidth, int kTiles>
cudaError_t launch_pages(const Task& task, int first, int count, cudaStream_t stream) {
  if (count == 0) return cudaSuccess;
  const dim3 grid(static_cast<unsigned>(count), static_cast<unsigned>(task.shape.kv_heads));
  return launch_chained<attend_kernel<kWidth, kTiles>>(
      grid, 32 * kKeyWarps * kTiles, Layout<kWidth, kTiles>::kBytes, stream, task, first);
}

// A page of many queries takes a block of four tiles; one row's, whose queries are few, a small
// one.
template <int kWidth>
cudaError_t launch(const Task& task, const WorkRoom& room, cudaStream_t stream) {
  const cudaError_t error = launch_pages<kWidth, 4>(task, 0, room.shared, stream);
  if (error != cudaSuccess) return error;
  return launch_pages<kWidth, 1>(task, room.shared, room.single, stream);
}

}  // namespace

cudaError_t attend(const float* qkv, const float2* turns, const StepRows& step,
                   const PageWork* work, WorkRoom room, HeadShape shape, KvPlace kv,
                   AttentionScratch scratch, void* out, cudaStream_t stream, bool fp16) {
  const Task task{qkv, turns, step.places, work, shape, kv, scratch};
  const cudaError_t error =
      shape.width == 64 ? launch<64>(task, room, stream) : launch<128>(task, room, stream);
  return error == cudaSuccess ? join_pages(step, shape, scratch, out, stream, fp16) : error;
}

}  // namespace kvfs::model::cuda
