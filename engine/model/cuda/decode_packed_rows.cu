// Weights of 4 or 8 bits times 2 to 16 activation rows, with the bits that decode_packed.cu gives
// each of them.
//
// Rows become integers in a kernel of its own, once. Here a row is a column of the tensor cores'
// tile, a block of 32 inputs two products (high and low bytes), and a warp stands for several of
// the one-row kernel's: it takes their chunks in their order and keeps their sums apart.

#include <algorithm>

#include "engine/model/cuda/chain.cuh"
#include "engine/model/cuda/fixed_point.cuh"
#include "engine/model/cuda/packed_format.cuh"
#include "engine/model/cuda/product.cuh"

namespace kvfs::model::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kFixThreads = 128;
constexpr int kChunkPieces = kPackedChunk / 8;

// By rows: many rows are read as often as there are tiles, so a warp takes two tiles at once.
template <WeightKind kKind, int kRows>
struct Shape {
  static constexpr int kTiles = kRows > 8 ? 2 : 1;
  static constexpr int kStages = kKind == WeightKind::kInt8 ? 2 : 3;
  static constexpr int kBlocksAnSm = kRows > 8 ? 1 : 2;
  static constexpr int kWeightBytes = kTiles * Format<kKind>::kBytes;
  static constexpr int kPieceBytes = kRows * kPackedChunk * 2;
  static constexpr int kStageBytes = kWeightBytes + kPieceBytes + kRows * kChunkScales * 4;
  static constexpr int kWarpBytes = kStages * kStageBytes;
  static constexpr int kRingBytes = kWarps * kWarpBytes;
};

// Of bf16 rows.
template <int kShift>
__global__ void __launch_bounds__(kFixThreads) fix_kernel(const Product p, FixedRows room) {
  const int pieces = packed_chunks(p.inputs) * kChunkPieces;
  const int piece = static_cast<int>(blockIdx.x * kFixThreads + threadIdx.x);
  const std::int64_t row = blockIdx.y;
  let_next_begin();
  wait_for_previous();
  uint4 x{0, 0, 0, 0};
  if (piece * 8 < p.inputs) {
    x = __ldcg(reinterpret_cast<const uint4*>(p.x + row * p.inputs) + piece);
  }
  const FixedPiece fixed = fixed_piece<kShift>(x);
  if (piece >= pieces) return;
  reinterpret_cast<uint4*>(room.pieces)[row * pieces + piece] = fixed.bytes;
  if (piece % 4 == 0) {
    put_scale(room.scales + row * (pieces / kChunkPieces * kChunkScales), piece, fixed.scale);
  }
}

// A warp's walk over its chunks of all the block's units, in the order of the one-row kernel's
// warps: those of `sum`, then of the next that this warp stands for.
struct Walk {
  int unit;
  int sum;
  int chunk;
  __device__ Walk(int first_unit, int warp, int chunks, int units)
      : unit(warp * kSegment < chunks ? first_unit : units), sum(warp), chunk(warp * kSegment) {}
  __device__ void step(int warp, int chunks) {
    ++chunk;
    if (chunk % kSegment == 0) chunk += (row_warps(chunks) - 1) * kSegment;
    if (chunk < chunks) return;
    sum += kWarps;
    chunk = sum * kSegment;
    if (sum < row_warps(chunks) && chunk < chunks) return;
    sum = warp;
    chunk = warp * kSegment;
    unit += static_cast<int>(gridDim.x);
  }
};

// c[tile][n][block] += the chunk's products with rows 8n …; pieces and scales of the rows in shared
// memory, read once for all tiles.
template <WeightKind kKind, int kTiles, int kN>
__device__ __forceinline__ void multiply_chunk(const std::uint8_t* from, const std::uint8_t* pieces,
                                               const float* x_scales,
                                               float (&c)[kTiles][kN][kBlocks][4]) {
  using F = Format<kKind>;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int g = lane / 4;
  const int t = lane % 4;
  uint4 low[kTiles][F::kPlanes];
  uint4 high[kTiles][F::kPlanes];
#pragma unroll
  for (int m = 0; m < kTiles; ++m) {
#pragma unroll
    for (int plane = 0; plane < F::kPlanes; ++plane) {
      const auto* at =
          reinterpret_cast<const uint4*>(from + m * F::kBytes + plane * kPlaneBytes) + lane;
      low[m][plane] = at[0];
      high[m][plane] = at[32];
    }
  }
  const auto* pairs = reinterpret_cast<const unsigned*>(from + F::kPlanes * kPlaneBytes) + g * 4;
#pragma unroll
  for (int block = 0; block < kBlocks; ++block) {
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      const uint4 x = *reinterpret_cast<const uint4*>(pieces + (g + 8 * n) * kPackedChunk * 2 +
                                                      block * 64 + t * 16);
      const float* of_x = x_scales + (8 * n + 2 * t) * kChunkScales + block;
      const float scale[2] = {of_x[0], of_x[kChunkScales]};
#pragma unroll
      for (int m = 0; m < kTiles; ++m) {
        const Eight of_g = eight_of<kKind>(low[m], block);
        const Eight of_h = eight_of<kKind>(high[m], block);
        const unsigned pair = pairs[m * (F::kBytes / 4) + block];
        int large[4] = {};
        int small[4] = {};
        multiply_bytes<F::kSigned>(large, of_g.first, of_h.first, of_g.second, of_h.second, x.x,
                                   x.y);
        multiply_bytes<F::kSigned>(small, of_g.first, of_h.first, of_g.second, of_h.second, x.z,
                                   x.w);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const auto value = static_cast<float>(large[i] * 256 + small[i]);
          float& sum = c[m][n][block][i];
          sum = fmaf(value, half_of(pair, i / 2) * scale[i % 2], sum);
          if (F::kMinimums) {
            sum = fmaf(of_x[i % 2 * kChunkScales + kBlocks],
                       half_of(pairs[m * (F::kBytes / 4) + 32 + block], i / 2), sum);
          }
        }
      }
    }
  }
}

template <WeightKind kKind, int kRows, class Epilogue>
__global__ void __launch_bounds__(32 * kWarps, Shape<kKind, kRows>::kBlocksAnSm)
    rows_kernel(const Product p, const Epilogue epilogue, const FixedRows x) {
  using F = Format<kKind>;
  using S = Shape<kKind, kRows>;
  constexpr int kN = kRows / 8;
  extern __shared__ __align__(128) std::uint8_t shared[];
  // + 4: no bank conflicts.
  __shared__ float sums[S::kTiles][kMostRowWarps][kRows][kTileOutputs + 4];
  __shared__ float scales[kMaxBatch];
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  const int warp = thread / 32;
  const int g = lane / 4;
  const int t = lane % 4;
  const int chunks = packed_chunks(p.inputs);
  const int summed = row_warps(chunks);
  const int units = (p.tiles + S::kTiles - 1) / S::kTiles;  // what a warp takes at once
  std::uint8_t* mine = shared + warp * S::kWarpBytes;
  const std::int64_t tile_bytes = std::int64_t{chunks} * F::kBytes;
  const auto* w = static_cast<const std::uint8_t*>(p.w);
  const auto fetch_weights = [&](const Walk& walk, int stage) {
    if (walk.unit >= units) return;
#pragma unroll
    for (int m = 0; m < S::kTiles; ++m) {
      const int tile = min(walk.unit * S::kTiles + m, p.tiles - 1);
      const std::uint8_t* from = w + tile * tile_bytes + walk.chunk * F::kBytes;
      std::uint8_t* to = mine + stage * S::kStageBytes + m * F::kBytes;
      for (int at = lane * 16; at < F::kBytes; at += 512) copy16(to + at, from + at, true);
    }
  };
  const auto fetch_rows = [&](const Walk& walk, int stage) {
    if (walk.unit >= units) return;
    std::uint8_t* to = mine + stage * S::kStageBytes + S::kWeightBytes;
    constexpr int kRowBytes = kPackedChunk * 2;
    for (int i = lane; i < kRows * (kRowBytes / 16); i += 32) {
      const int row = i / (kRowBytes / 16);
      const bool real = row < p.rows;
      const std::int64_t at = (std::int64_t{real ? row : 0} * chunks + walk.chunk) * kRowBytes;
      copy16(to + i * 16, x.pieces + at + i % (kRowBytes / 16) * 16, real);
    }
    to += S::kPieceBytes;
    if (lane < 2 * kRows) {
      const int row = lane / 2;
      const bool real = row < p.rows;
      const std::int64_t at = (std::int64_t{real ? row : 0} * chunks + walk.chunk) * kChunkScales;
      copy16(to + lane * 16, x.scales + at + lane % 2 * 4, real);
    }
  };

  Walk ahead(static_cast<int>(blockIdx.x), warp, chunks, units);
  for (int stage = 0; stage < S::kStages; ++stage) {
    fetch_weights(ahead, stage);
    ahead.step(warp, chunks);
  }
  close_copies();
  let_next_begin();
  wait_for_previous();
  Walk rows_ahead(static_cast<int>(blockIdx.x), warp, chunks, units);
  for (int stage = 0; stage < S::kStages; ++stage) {
    fetch_rows(rows_ahead, stage);
    close_copies();
    rows_ahead.step(warp, chunks);
  }
  norm_scales<kWarps>(p, epilogue, scales);

  // Of the threads that add the warps' sums.
  const int output = thread % kTileOutputs;
  const int row = thread / kTileOutputs;
  const bool adds = row < kRows;
  int stage = 0;
  for (int unit = static_cast<int>(blockIdx.x); unit < units; unit += static_cast<int>(gridDim.x)) {
    typename Epilogue::Fetched fetched[S::kTiles]{};
#pragma unroll
    for (int m = 0; m < S::kTiles; ++m) {
      if (adds) fetched[m] = epilogue.fetch(p, unit * S::kTiles + m, row, output);
    }
    for (int sum = warp; sum < summed; sum += kWarps) {
      float c[S::kTiles][kN][kBlocks][4] = {};
      for (int segment = sum; segment * kSegment < chunks; segment += summed) {
        for (int i = 0; i < kSegment && segment * kSegment + i < chunks; ++i) {
          await_copies<S::kStages - 1>();
          __syncwarp();
          const std::uint8_t* from = mine + stage * S::kStageBytes;
          const std::uint8_t* pieces = from + S::kWeightBytes;
          multiply_chunk<kKind>(from, pieces,
                                reinterpret_cast<const float*>(pieces + S::kPieceBytes), c);
          __syncwarp();
          fetch_weights(ahead, stage);
          fetch_rows(ahead, stage);
          close_copies();
          ahead.step(warp, chunks);
          stage = stage + 1 == S::kStages ? 0 : stage + 1;
        }
      }
#pragma unroll
      for (int m = 0; m < S::kTiles; ++m) {
#pragma unroll
        for (int n = 0; n < kN; ++n) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            sums[m][sum][n * 8 + 2 * t + i % 2][g + 8 * (i / 2)] =
                (c[m][n][0][i] + c[m][n][1][i]) + (c[m][n][2][i] + c[m][n][3][i]);
          }
        }
      }
    }
    __syncthreads();
#pragma unroll
    for (int m = 0; m < S::kTiles; ++m) {
      if (adds) {
        float sum = sums[m][0][row][output];
        for (int each = 1; each < summed; ++each) sum += sums[m][each][row][output];
        epilogue.take(p, unit * S::kTiles + m, row, output, sum,
                      Epilogue::kNormed ? scales[row] : 1.0F, fetched[m]);
      }
    }
    __syncthreads();
  }
  await_copies<0>();
}

template <WeightKind kKind, int kRows, class Epilogue>
cudaError_t launch_rows(const Product& p, const Epilogue& epilogue, FixedRows room,
                        cudaStream_t stream) {
  using S = Shape<kKind, kRows>;
  const int pieces = packed_chunks(p.inputs) * kChunkPieces;
  const cudaError_t error = launch_chained<fix_kernel<Format<kKind>::kShift>>(
      dim3(static_cast<unsigned>((pieces + kFixThreads - 1) / kFixThreads),
           static_cast<unsigned>(p.rows)),
      kFixThreads, 0, stream, p, room);
  if (error != cudaSuccess) return error;
  const int units = (p.tiles + S::kTiles - 1) / S::kTiles;
  return launch_chained<rows_kernel<kKind, kRows, Epilogue>>(
      dim3(static_cast<unsigned>(std::min(units, S::kBlocksAnSm * multiprocessors()))), 32 * kWarps,
      S::kRingBytes, stream, p, epilogue, room);
}

template <WeightKind kKind, class Epilogue>
cudaError_t launch_kind(const Product& p, const Epilogue& epilogue, FixedRows room,
                        cudaStream_t stream) {
  if (p.rows <= 8) return launch_rows<kKind, 8>(p, epilogue, room, stream);
  return launch_rows<kKind, kMaxBatch>(p, epilogue, room, stream);
}

}  // namespace

template <class Epilogue>
cudaError_t launch_packed_rows(WeightKind kind, const Product& p, const Epilogue& epilogue,
                               FixedRows room, cudaStream_t stream) {
  if (room.pieces == nullptr) return cudaErrorInvalidValue;
  switch (kind) {
    case WeightKind::kInt4:
      return launch_kind<WeightKind::kInt4>(p, epilogue, room, stream);
    case WeightKind::kInt4Min:
      return launch_kind<WeightKind::kInt4Min>(p, epilogue, room, stream);
    case WeightKind::kInt8:
      return launch_kind<WeightKind::kInt8>(p, epilogue, room, stream);
    case WeightKind::kBf16:
    case WeightKind::kF16:
      break;
  }
  return cudaErrorInvalidValue;
}
template cudaError_t launch_packed_rows(WeightKind, const Product&, const StoreNormed&, FixedRows,
                                        cudaStream_t);
template cudaError_t launch_packed_rows(WeightKind, const Product&, const GateNormed&, FixedRows,
                                        cudaStream_t);
template cudaError_t launch_packed_rows(WeightKind, const Product&, const AddAndNorm&, FixedRows,
                                        cudaStream_t);

}  // namespace kvfs::model::cuda
