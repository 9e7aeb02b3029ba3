// Weights of 4 or 8 bits times up to 16 activation rows, at the speed of the weights.
//
// As decode_linear.cu, but a chunk is 128 inputs and comes in the order of decode_packed.h, and one
// row's x is copied to shared memory once for all tiles of the block. Numbers become bf16 without
// arithmetic: 128 + n is 0x4300 | n. The tensor cores add up a block of 32 inputs, (128 + zero) · Σx
// is taken from that, and Σ (n − zero) · x, what is left, is multiplied by the block's scale. Σx is
// always added in the same order, eight neighbours a lane and then the four lanes, so that one row
// and sixteen have the same bits.

#include <algorithm>

#include "engine/model/cuda/chain.cuh"
#include "engine/model/cuda/packed_format.cuh"
#include "engine/model/cuda/product.cuh"

namespace kvfs::model::cuda {
namespace {

constexpr int kMostShared = 227 * 1024;  // of a multiprocessor
constexpr unsigned kAll = 0xffffffffU;

// By rows: many rows are read as often as there are tiles, so a warp takes two tiles at once where
// there is room.
template <WeightKind kKind, int kRows, int kBlockWarps>
struct Shape {
  static constexpr bool kOne = kRows == 1;
  static constexpr bool kWide = kBlockWarps > 8;
  static constexpr bool kBytes8 = kKind == WeightKind::kInt8;
  static constexpr int kWarps = kBlockWarps;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kTiles = kRows > 8 && !kWide ? 2 : 1;
  static constexpr int kColumns = kOne ? 8 : kRows;  // of the tensor cores' tiles
  static constexpr int kStored = kOne ? 1 : kRows;   // of these, whose sums are wanted
  static constexpr int kStages = kOne ? (kBytes8 ? 3 : 4) : kWide && kBytes8 ? 2 : 3;
  static constexpr int kBlocksAnSm = kOne ? (kWide || kBytes8 ? 2 : 3) : kRows > 8 || kWide ? 1 : 2;
  static constexpr int kWeightBytes = kTiles * Format<kKind>::kBytes;
  static constexpr int kStageBytes = kWeightBytes + (kOne ? 0 : kRows * kPackedChunk * 2);
  static constexpr int kWarpBytes = kStages * kStageBytes;
  static constexpr int kRingBytes = kWarps * kWarpBytes;
  static constexpr int kSumBytes = 2 * kWarps * kStored * (kTileOutputs + 4) * 4 + 64;
};

// Σ of eight neighbours, and of the four lanes' eight.
__device__ __forceinline__ float sum_of_block(const uint4& x) {
  const unsigned words[4] = {x.x, x.y, x.z, x.w};
  float pairs[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    pairs[i] = __uint_as_float(words[i] << 16) + __uint_as_float(words[i] & 0xffff0000U);
  }
  float sum = (pairs[0] + pairs[1]) + (pairs[2] + pairs[3]);
  sum += __shfl_xor_sync(kAll, sum, 1);
  return sum + __shfl_xor_sync(kAll, sum, 2);
}

// One row's x: each warp copies its own chunks, with their blocks' sums.
template <int kWarps>
__device__ __forceinline__ void load_row(const Product& p, int chunks, __nv_bfloat16* x,
                                         float* block_sums) {
  constexpr int kPieces = kPackedChunk / 8;  // of a chunk
  constexpr int kAtOnce = 4;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int pieces = (chunks - warp + kWarps - 1) / kWarps * kPieces;
  for (int begin = 0; begin < pieces; begin += 32 * kAtOnce) {
    uint4 v[kAtOnce];
    int k[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int piece = begin + 32 * i + lane;
      k[i] = (warp + piece / kPieces * kWarps) * kPackedChunk + piece % kPieces * 8;
      v[i] = uint4{0, 0, 0, 0};
      if (k[i] < p.inputs) v[i] = __ldcg(reinterpret_cast<const uint4*>(p.x + k[i]));
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const float sum = sum_of_block(v[i]);
      if (begin + 32 * i + lane >= pieces) continue;
      *reinterpret_cast<uint4*>(x + k[i]) = v[i];
      if (lane % 4 == 0) block_sums[k[i] / kPackedBlock] = sum;
    }
  }
  __syncwarp();
}

// Numbers `pair` of a word and of its upper half → bf16 128 + n.
__device__ __forceinline__ unsigned numbers(unsigned word, int pair) {
  unsigned out;  // (word >> 4 · pair & 0x000f000f) | 0x43004300, in two instructions
  asm("lop3.b32 %0, %1, %2, %3, 0xea;"
      : "=r"(out)
      : "r"(word >> (4 * pair)), "n"(0x000f000f), "n"(0x43004300));
  return out;
}
// c += the chunk's products. b[n][block]: columns 8n + g, inputs 8t …; sums[n][block]: Σx of
// columns 8n + 2t and 8n + 2t + 1.
template <WeightKind kKind, bool kOne, int kN>
__device__ __forceinline__ void multiply_chunk(const std::uint8_t* from,
                                               const uint4 (&b)[kN][kBlocks],
                                               const float2 (&sums)[kN][kBlocks],
                                               float (&c)[kN][4]) {
  using F = Format<kKind>;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const std::uint8_t* scales = from + F::kPlanes * kPlaneBytes + lane / 4 * 8;
  const uint2 low_scales = *reinterpret_cast<const uint2*>(scales);
  const uint2 high_scales = *reinterpret_cast<const uint2*>(scales + 64);
  uint2 low_minimums{};
  uint2 high_minimums{};
  if (F::kMinimums) {
    low_minimums = *reinterpret_cast<const uint2*>(scales + 128);
    high_minimums = *reinterpret_cast<const uint2*>(scales + 192);
  }
  uint4 low[F::kPlanes];
  uint4 high[F::kPlanes];
#pragma unroll
  for (int plane = 0; plane < F::kPlanes; ++plane) {
    const auto* at = reinterpret_cast<const uint4*>(from + plane * kPlaneBytes) + lane;
    low[plane] = at[0];
    high[plane] = at[32];
  }
#pragma unroll
  for (int block = 0; block < kBlocks; ++block) {
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      const float2 x = sums[n][block];
      float sum[F::kPlanes][4];
#pragma unroll
      for (int plane = 0; plane < F::kPlanes; ++plane) {
        const unsigned a = word_of(low[plane], block);
        const unsigned d = word_of(high[plane], block);
        multiply_first(sum[plane], numbers(a, 0), numbers(d, 0), numbers(a, 1), numbers(d, 1),
                       b[n][block].x, b[n][block].y);
        multiply(sum[plane], numbers(a, 2), numbers(d, 2), numbers(a, 3), numbers(d, 3),
                 b[n][block].z, b[n][block].w);
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (kOne && i % 2 == 1) continue;  // all columns are the same row
        const float of_block = i % 2 == 0 ? x.x : x.y;
        float value = sum[0][i];
        if (F::kPlanes == 2) value = fmaf(16.0F, sum[F::kPlanes - 1][i], value);
        value = fmaf(F::kBias, of_block, value);
        c[n][i] = fmaf(value, half_of(i < 2 ? low_scales : high_scales, block), c[n][i]);
        if (F::kMinimums) {
          c[n][i] = fmaf(of_block, half_of(i < 2 ? low_minimums : high_minimums, block), c[n][i]);
        }
      }
    }
  }
}

template <WeightKind kKind, int kRows, class Epilogue>
__global__ void __launch_bounds__(Shape<kKind, kRows, Epilogue::kPackedWarps>::kThreads,
                                  Shape<kKind, kRows, Epilogue::kPackedWarps>::kBlocksAnSm)
    packed_kernel(const Product p, const Epilogue epilogue) {
  using F = Format<kKind>;
  using S = Shape<kKind, kRows, Epilogue::kPackedWarps>;
  constexpr int kWarps = S::kWarps;
  constexpr int kN = S::kColumns / 8;
  extern __shared__ __align__(128) std::uint8_t shared[];
  // Two in turn, so that one barrier a tile is enough; + 4: no bank conflicts.
  __shared__ float sums[2][kWarps][S::kStored][kTileOutputs + 4];
  __shared__ float scales[kMaxBatch];
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  const int warp = thread / 32;
  const int g = lane / 4;
  const int t = lane % 4;
  const int chunks = packed_chunks(p.inputs);
  const int units = (p.tiles + S::kTiles - 1) / S::kTiles;  // what a warp takes at once
  std::uint8_t* mine = shared + warp * S::kWarpBytes;
  auto* row_x = reinterpret_cast<__nv_bfloat16*>(shared + S::kRingBytes);  // one row's only
  auto* row_sums = reinterpret_cast<float*>(row_x + chunks * kPackedChunk);

  const unsigned copied = in_shared(mine) + static_cast<unsigned>(lane) * 16;  // by this lane
  const std::int64_t tile_bytes = std::int64_t{chunks} * F::kBytes;
  const auto fetch_weights = [&](const Walk<kWarps>& walk, const std::uint8_t* from, int stage) {
    if (walk.unit >= units || walk.chunk >= chunks) return;
    const unsigned to = copied + static_cast<unsigned>(stage * S::kStageBytes);
#pragma unroll
    for (int m = 0; m < S::kTiles; ++m) {
      if (m > 0 && walk.unit * S::kTiles + m < p.tiles) from += tile_bytes;
#pragma unroll
      for (int at = 0; at + 512 <= F::kBytes; at += 512) {
        copy16(to + m * F::kBytes + at, from + at, true);
      }
      constexpr int kRest = F::kBytes % 512;
      if (lane < kRest / 16) {
        copy16(to + (m + 1) * F::kBytes - kRest, from + F::kBytes - kRest, true);
      }
    }
  };
  const auto fetch_rows = [&](const Walk<kWarps>& walk, int stage) {
    if (S::kOne || walk.unit >= units || walk.chunk >= chunks) return;
    std::uint8_t* to = mine + stage * S::kStageBytes + S::kWeightBytes + t * 16;
    const int k = walk.chunk * kPackedChunk + t * 8;
#pragma unroll
    for (int row = g; row < kRows; row += 8) {
      const __nv_bfloat16* from = p.x + std::int64_t{row} * p.inputs + k;
#pragma unroll
      for (int block = 0; block < kBlocks; ++block) {
        const bool real = row < p.rows && k + block * kPackedBlock < p.inputs;
        copy16(to + row * kPackedChunk * 2 + block * 64, real ? from + block * kPackedBlock : p.x,
               real);
      }
    }
  };

  const Walk<kWarps> start{static_cast<int>(blockIdx.x), warp};
  Walk<kWarps> ahead = start;
  const auto place_of = [&](const Walk<kWarps>& walk) {  // in memory, of what this lane copies
    return static_cast<const std::uint8_t*>(p.w) +
           std::int64_t{walk.unit} * S::kTiles * tile_bytes + walk.chunk * F::kBytes + lane * 16;
  };
  const std::uint8_t* from_ahead = place_of(ahead);
  const auto step_ahead = [&] {
    const int unit = ahead.unit;
    ahead.step(warp, chunks);
    from_ahead = unit == ahead.unit ? from_ahead + kWarps * F::kBytes : place_of(ahead);
  };
  for (int stage = 0; stage < S::kStages; ++stage) {
    fetch_weights(ahead, from_ahead, stage);
    if (S::kOne) close_copies();
    step_ahead();
  }
  if (!S::kOne) close_copies();
  wait_for_previous();
  let_next_begin();
  if constexpr (S::kOne) {
    load_row<kWarps>(p, chunks, row_x, row_sums);
  } else {
    Walk<kWarps> rows_ahead = start;
    for (int stage = 0; stage < S::kStages; ++stage) {
      fetch_rows(rows_ahead, stage);
      close_copies();
      rows_ahead.step(warp, chunks);
    }
  }
  norm_scales<kWarps>(p, epilogue, scales);

  // Of the threads that add the warps' sums: whole warps.
  const int output = thread % kTileOutputs;
  const int row = thread / kTileOutputs;
  const bool adds = row < std::max(S::kStored, 2);
  int stage = 0;
  int parity = 0;
  for (int unit = start.unit; unit < units; unit += static_cast<int>(gridDim.x)) {
    typename Epilogue::Fetched fetched[S::kTiles]{};
#pragma unroll
    for (int m = 0; m < S::kTiles; ++m) {
      if (adds) fetched[m] = epilogue.fetch(p, unit * S::kTiles + m, row, output);
    }
    float c[S::kTiles][kN][4] = {};
    for (int chunk = warp; chunk < chunks; chunk += kWarps) {
      await_copies<S::kStages - 1>();
      __syncwarp();  // lanes share the scales
      const std::uint8_t* from = mine + stage * S::kStageBytes;
      uint4 b[kN][kBlocks];
      float2 x_sums[kN][kBlocks];
      if constexpr (S::kOne) {
#pragma unroll
        for (int block = 0; block < kBlocks; ++block) {
          x_sums[0][block].x = x_sums[0][block].y = row_sums[chunk * kBlocks + block];
          b[0][block] = *reinterpret_cast<const uint4*>(row_x + chunk * kPackedChunk +
                                                        block * kPackedBlock + t * 8);
        }
      } else {
#pragma unroll
        for (int n = 0; n < kN; ++n) {
#pragma unroll
          for (int block = 0; block < kBlocks; ++block) {
            b[n][block] = *reinterpret_cast<const uint4*>(
                from + S::kWeightBytes + (g + 8 * n) * kPackedChunk * 2 + block * 64 + t * 16);
            const float sum = sum_of_block(b[n][block]);  // of column g
            x_sums[n][block] = {__shfl_sync(kAll, sum, 8 * t), __shfl_sync(kAll, sum, 8 * t + 4)};
          }
        }
      }
#pragma unroll
      for (int m = 0; m < S::kTiles; ++m) {
        multiply_chunk<kKind, S::kOne>(from + m * F::kBytes, b, x_sums, c[m]);
      }
      __syncwarp();
      fetch_weights(ahead, from_ahead, stage);
      fetch_rows(ahead, stage);
      close_copies();
      step_ahead();
      stage = stage + 1 == S::kStages ? 0 : stage + 1;
    }
#pragma unroll
    for (int m = 0; m < S::kTiles; ++m) {
#pragma unroll
      for (int n = 0; n < kN; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int column = n * 8 + 2 * t + i % 2;
          if (column < S::kStored) sums[parity][warp][column][g + 8 * (i / 2)] = c[m][n][i];
        }
      }
      __syncthreads();
      if (adds) {
        const int of = std::min(row, S::kStored - 1);
        float sum = sums[parity][0][of][output];
#pragma unroll
        for (int w = 1; w < kWarps; ++w) sum += sums[parity][w][of][output];
        epilogue.take(p, unit * S::kTiles + m, row, output, sum,
                      Epilogue::kNormed ? scales[of] : 1.0F, fetched[m]);
      }
      parity ^= 1;
    }
  }
  await_copies<0>();
}

template <WeightKind kKind, class Epilogue>
cudaError_t launch_kind(const Product& p, const Epilogue& epilogue, cudaStream_t stream) {
  const auto with = [&]<int kRows>() {
    using S = Shape<kKind, kRows, Epilogue::kPackedWarps>;
    const int x_bytes =
        S::kOne ? packed_chunks(p.inputs) * (kPackedChunk * 2 + kBlocks * int{sizeof(float)}) : 0;
    const int shared = S::kRingBytes + x_bytes;
    const int fit = kMostShared / (shared + S::kSumBytes + 1024);
    const int units = (p.tiles + S::kTiles - 1) / S::kTiles;
    const int blocks = std::clamp(fit, 1, S::kBlocksAnSm) * multiprocessors();
    return launch_chained<packed_kernel<kKind, kRows, Epilogue>>(
        dim3(static_cast<unsigned>(std::min(units, blocks))), S::kThreads,
        static_cast<std::size_t>(shared), stream, p, epilogue);
  };
  if (p.rows == 1) return with.template operator()<1>();
  if (p.rows <= 8) return with.template operator()<8>();
  return with.template operator()<kMaxBatch>();
}

}  // namespace

template <class Epilogue>
cudaError_t launch_packed(WeightKind kind, const Product& p, const Epilogue& epilogue,
                          cudaStream_t stream) {
  switch (kind) {
    case WeightKind::kInt4:
      return launch_kind<WeightKind::kInt4>(p, epilogue, stream);
    case WeightKind::kInt4Min:
      return launch_kind<WeightKind::kInt4Min>(p, epilogue, stream);
    case WeightKind::kInt8:
      return launch_kind<WeightKind::kInt8>(p, epilogue, stream);
    case WeightKind::kBf16:
      break;
  }
  return cudaErrorInvalidValue;
}
template cudaError_t launch_packed(WeightKind, const Product&, const StoreNormed&, cudaStream_t);
template cudaError_t launch_packed(WeightKind, const Product&, const GateNormed&, cudaStream_t);
template cudaError_t launch_packed(WeightKind, const Product&, const AddAndNorm&, cudaStream_t);

}  // namespace kvfs::model::cuda
