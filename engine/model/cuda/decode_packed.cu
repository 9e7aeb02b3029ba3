// Weights of 4 or 8 bits times one activation row, at the speed of the weights.
//
// x becomes integers of 15 bits with a power of two for 32 inputs (fixed_point.cuh), in each block
// for itself; weights are bytes after two logical operations a word. The tensor cores' eight
// columns are the high and the low bytes of a chunk's four blocks of 32 inputs: a block's x stands
// in its two columns and zeros in the others, so that four products add up in one set of registers,
// and lane 4g + t ends with block t's two sums of outputs g and g + 8. They are whole numbers; the
// scales are multiplied in, and a lane adds up its blocks of all the warp's chunks.

#include <algorithm>

#include "engine/model/cuda/chain.cuh"
#include "engine/model/cuda/fixed_point.cuh"
#include "engine/model/cuda/packed_format.cuh"
#include "engine/model/cuda/product.cuh"
#include "engine/model/cuda/weight_ring.cuh"

namespace kvfs::model::cuda {
namespace {

constexpr int kMostShared = 227 * 1024;  // of a multiprocessor
constexpr int kGroup = 2;                // tiles between two barriers: 32 outputs, a warp's
constexpr int kMostStages = 8;
constexpr int kLongRow = 16;  // chunks
constexpr unsigned kAll = 0xffffffffU;

// Shared memory of a block: the ring, then x, then x's scales.
struct Plan {
  int chunks;
  int segments;
  int stages;
  int ring_bytes;
  bool lets_begin_early;  // not with small blocks, which would crowd on some multiprocessors
};

// A warp's ring of weights: what is filled runs ahead of what is multiplied.
template <WeightKind kKind, int kWarps>
struct WeightRing {
  static constexpr int kBytes = Format<kKind>::kBytes;
  static constexpr int kStageBytes = kSegment * kBytes;
  // Its barrier lies behind a stage, by itself: copies to addresses that 128 does not divide are
  // slow.
  static constexpr int kStride = kStageBytes + 128;

  const Plan& plan;
  int lane;
  int warp;
  unsigned end;    // in shared memory
  unsigned place;  // what is multiplied
  unsigned parity = 0;
  // What is filled.
  int segment;
  int tiles_left;
  const std::uint8_t* from;
  int next_tile;  // from a tile's last segment to the next one's first

  __device__ WeightRing(const Product& p, const Plan& of, unsigned ring)
      : plan(of),
        lane(static_cast<int>(threadIdx.x) % 32),
        warp(static_cast<int>(threadIdx.x) / 32),
        end(ring + static_cast<unsigned>((warp + 1) * of.stages * kStride)),
        place(ring + static_cast<unsigned>(warp * of.stages * kStride)),
        segment(warp) {
    const int step = static_cast<int>(gridDim.x);
    const int block = static_cast<int>(blockIdx.x);
    const int tile_bytes = of.chunks * kBytes;
    tiles_left = warp < of.segments ? (p.tiles - block + step - 1) / step : 0;
    from = static_cast<const std::uint8_t*>(p.w) + std::int64_t{block} * tile_bytes +
           warp * kStageBytes;
    next_tile = step * tile_bytes - (of.segments - 1 - warp) / kWarps * (kWarps * kStageBytes);
    if (lane < of.stages) open_stage(place + static_cast<unsigned>(lane * kStride + kStageBytes));
    __syncwarp();
    for (int stage = 0; stage < of.stages; ++stage) {
      fill(place + static_cast<unsigned>(stage * kStride));
    }
  }

  __device__ __forceinline__ void fill(unsigned to) {
    if (tiles_left <= 0) return;
    const int count = min(kSegment, plan.chunks - segment * kSegment);
    fill_stage(to, from, count * kBytes, to + kStageBytes, lane);
    segment += kWarps;
    if (segment < plan.segments) {
      from += kWarps * kStageBytes;
    } else {
      segment = warp;
      from += next_tile;
      --tiles_left;
    }
  }
  __device__ __forceinline__ void await() const { await_stage(place + kStageBytes, parity); }
  __device__ __forceinline__ void done() {
    __syncwarp();
    fill(place);
    place += kStride;
    if (place == end) {
      place -= static_cast<unsigned>(plan.stages * kStride);
      parity ^= 1U;
    }
  }
};

// x as fixed-point pieces: each warp its own segments'.
template <int kShift, int kWarps>
__device__ __forceinline__ void fix_row(const Product& p, const Plan& plan, std::uint8_t* x,
                                        float* scales) {
  constexpr int kChunkPieces = kPackedChunk / 8;
  constexpr int kPieces = kChunkPieces * kSegment;  // of a segment
  constexpr int kAtOnce = 4;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int pieces = (plan.segments - warp + kWarps - 1) / kWarps * kPieces;
  for (int begin = 0; begin < pieces; begin += 32 * kAtOnce) {
    uint4 v[kAtOnce];
    int index[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int piece = begin + 32 * i + lane;
      index[i] = (warp + piece / kPieces * kWarps) * kPieces + piece % kPieces;
      v[i] = uint4{0, 0, 0, 0};
      if (index[i] * 8 < p.inputs) v[i] = __ldcg(reinterpret_cast<const uint4*>(p.x) + index[i]);
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (begin + 32 * i >= pieces) break;
      const FixedPiece fixed = fixed_piece<kShift>(v[i]);
      if (begin + 32 * i + lane >= pieces || index[i] >= plan.chunks * kChunkPieces) continue;
      reinterpret_cast<uint4*>(x)[index[i]] = fixed.bytes;
      if (lane % 4 == 0) put_scale(scales, index[i], fixed.scale);
    }
  }
  __syncwarp();
}

// What a lane takes of x, in shared memory.
struct LaneX {
  int block;       // whose x it gives the tensor cores
  unsigned piece;  // of chunk 0
  unsigned scale;
};

// c += a chunk's products, of outputs g and g + 8; weights at `from` in shared memory. b: zeros
// where the block is another lane's.
template <WeightKind kKind>
__device__ __forceinline__ void multiply_chunk(unsigned from, const LaneX& x, int chunk,
                                               uint2 (&b)[kBlocks], float (&c)[2]) {
  using F = Format<kKind>;
  const unsigned lane = threadIdx.x % 32;
  uint4 low[F::kPlanes];
  uint4 high[F::kPlanes];
#pragma unroll
  for (int plane = 0; plane < F::kPlanes; ++plane) {
    low[plane] = shared16(from + lane * 16 + plane * kPlaneBytes);
    high[plane] = shared16(from + lane * 16 + plane * kPlaneBytes + 512);
  }
  const unsigned scales = shared4(from + lane * 4 + F::kPlanes * kPlaneBytes);
  const unsigned piece = x.piece + static_cast<unsigned>(chunk) * (kPackedChunk * 2);
#pragma unroll
  for (int block = 0; block < kBlocks; ++block) {
    asm volatile("{ .reg .pred p; setp.eq.s32 p, %3, %4; @p ld.shared.v2.u32 {%0, %1}, [%2]; }"
                 : "+r"(b[block].x), "+r"(b[block].y)
                 : "r"(piece), "r"(x.block), "r"(block));
  }
  const unsigned scale = x.scale + static_cast<unsigned>(chunk) * (kChunkScales * 4);
  const float x_scale = __uint_as_float(shared4(scale));
  int sums[4] = {};
#pragma unroll
  for (int block = 0; block < kBlocks; ++block) {
    const Eight of_g = eight_of<kKind>(low, block);
    const Eight of_h = eight_of<kKind>(high, block);
    multiply_bytes<F::kSigned>(sums, of_g.first, of_h.first, of_g.second, of_h.second, b[block].x,
                               b[block].y);
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const auto value = static_cast<float>(sums[2 * half] * 256 + sums[2 * half + 1]);
    c[half] = fmaf(value, half_of(scales, half) * x_scale, c[half]);
  }
  if constexpr (F::kMinimums) {
    const float x_sum = __uint_as_float(shared4(scale + kChunkScales * 2));
    const unsigned minimums = shared4(from + lane * 4 + F::kPlanes * kPlaneBytes + 128);
#pragma unroll
    for (int half = 0; half < 2; ++half) c[half] = fmaf(x_sum, half_of(minimums, half), c[half]);
  }
}

template <WeightKind kKind, int kWarps, int kMostBlocks, class Epilogue>
__global__ void __launch_bounds__(32 * kWarps, kMostBlocks)
    row_kernel(const Product p, const Epilogue epilogue, const Plan plan) {
  extern __shared__ __align__(128) std::uint8_t shared[];
  __shared__ float sums[2][kGroup][kWarps][kTileOutputs];  // two in turn: one barrier is enough
  __shared__ float norm_scale[kMaxBatch];
  std::uint8_t* x = shared + plan.ring_bytes;
  auto* x_scales = reinterpret_cast<float*>(x + plan.chunks * kPackedChunk * 2);
  WeightRing<kKind, kWarps> ring(p, plan, in_shared(shared));
  if (plan.lets_begin_early) let_next_begin();
  wait_for_previous();
  if (!plan.lets_begin_early) let_next_begin();
  fix_row<Format<kKind>::kShift, kWarps>(p, plan, x, x_scales);
  norm_scales<kWarps>(p, epilogue, norm_scale);

  const int lane = ring.lane;
  const int warp = ring.warp;
  const int step = static_cast<int>(gridDim.x);
  const int output = lane % kTileOutputs;
  const int of = lane / kTileOutputs;
  const LaneX my_x{
      lane / 8,
      in_shared(x) + static_cast<unsigned>(lane / 8 * 64 + lane % 4 * 16 + lane / 4 % 2 * 8),
      in_shared(x_scales) + static_cast<unsigned>(lane % 4) * 4};
  uint2 b[kBlocks] = {};
  int turn = 0;
  for (int first = static_cast<int>(blockIdx.x); first < p.tiles; first += kGroup * step) {
    typename Epilogue::Fetched fetched{};
    if (warp == 0) fetched = epilogue.fetch(p, first + of * step, 0, output);
#pragma unroll 1
    for (int n = 0; n < kGroup && first + n * step < p.tiles; ++n) {
      float c[2] = {0.0F, 0.0F};
#pragma unroll 1
      for (int segment = warp; segment < plan.segments; segment += kWarps) {
        ring.await();
#pragma unroll
        for (int i = 0; i < kSegment; ++i) {
          const int chunk = segment * kSegment + i;
          if (i > 0 && chunk >= plan.chunks) break;
          multiply_chunk<kKind>(ring.place + static_cast<unsigned>(i * Format<kKind>::kBytes), my_x,
                                chunk, b, c);
        }
        ring.done();
      }
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        c[half] += __shfl_xor_sync(kAll, c[half], 1);
        c[half] += __shfl_xor_sync(kAll, c[half], 2);
        if (lane % 4 == 0) sums[turn][n][warp][lane / 4 + 8 * half] = c[half];
      }
    }
    __syncthreads();
    if (warp == 0) {
      float sum = sums[turn][of][0][output];
#pragma unroll
      for (int each = 1; each < kWarps; ++each) sum += sums[turn][of][each][output];
      epilogue.take(p, first + of * step, 0, output, sum, Epilogue::kNormed ? norm_scale[0] : 1.0F,
                    fetched);
    }
    turn ^= 1;
  }
}

template <WeightKind kKind, int kWarps, class Epilogue>
cudaError_t launch(const Product& p, const Epilogue& epilogue, cudaStream_t stream) {
  constexpr int kMostBlocks = kWarps == 8 ? 3 : 2;  // of a multiprocessor, as its registers allow
  constexpr int kStage = kWarps * WeightRing<kKind, kWarps>::kStride;
  constexpr int kElse = 2 * kGroup * kWarps * kTileOutputs * 4 + 256 + 1024;
  // Few tiles: as many at once as fit. Many: fewer blocks with longer rings.
  const int wanted = p.tiles <= kMostBlocks * multiprocessors() ? kMostBlocks : 2;
  Plan plan{};
  plan.chunks = packed_chunks(p.inputs);
  plan.segments = (plan.chunks + kSegment - 1) / kSegment;
  plan.lets_begin_early = plan.chunks >= kLongRow;
  const int x_bytes = plan.chunks * (kPackedChunk * 2 + kChunkScales * 4);
  plan.stages = std::clamp((kMostShared / wanted - kElse - x_bytes) / kStage, 2, kMostStages);
  plan.ring_bytes = plan.stages * kStage;
  const int shared = x_bytes + plan.ring_bytes;
  const int an_sm = std::clamp(kMostShared / (shared + kElse), 1, wanted);
  return launch_chained<row_kernel<kKind, kWarps, kMostBlocks, Epilogue>>(
      dim3(static_cast<unsigned>(std::min(p.tiles, an_sm * multiprocessors()))), 32 * kWarps,
      static_cast<std::size_t>(shared), stream, p, epilogue, plan);
}

template <WeightKind kKind, class Epilogue>
cudaError_t launch_kind(const Product& p, const Epilogue& epilogue, cudaStream_t stream) {
  if (row_warps(packed_chunks(p.inputs)) == 8) return launch<kKind, 8>(p, epilogue, stream);
  return launch<kKind, 16>(p, epilogue, stream);
}

}  // namespace

template <class Epilogue>
cudaError_t launch_packed_row(WeightKind kind, const Product& p, const Epilogue& epilogue,
                              cudaStream_t stream) {
  switch (kind) {
    case WeightKind::kInt4:
      return launch_kind<WeightKind::kInt4>(p, epilogue, stream);
    case WeightKind::kInt4Min:
      return launch_kind<WeightKind::kInt4Min>(p, epilogue, stream);
    case WeightKind::kInt8:
      return launch_kind<WeightKind::kInt8>(p, epilogue, stream);
    case WeightKind::kBf16:
    case WeightKind::kF16:
      break;
  }
  return cudaErrorInvalidValue;
}
template cudaError_t launch_packed_row(WeightKind, const Product&, const StoreNormed&,
                                       cudaStream_t);
template cudaError_t launch_packed_row(WeightKind, const Product&, const GateNormed&, cudaStream_t);
template cudaError_t launch_packed_row(WeightKind, const Product&, const AddAndNorm&, cudaStream_t);

}  // namespace kvfs::model::cuda
