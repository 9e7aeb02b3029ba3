// Matrix times up to 16 activation rows, at the speed of the weights.
//
// A block owns tiles of 16 outputs; its 8 warps take chunks of 64 inputs in turn, and the 8 sums of
// an output are added in the warps' order. Rows are the tensor cores' columns, 8 or 16 of them,
// empty ones included: a row's sum never depends on its company.
//
//   W  [16 outputs × 64 inputs] ─ cp.async ─┐ a lane copies what it will multiply, so a warp's
//   x  [rows × 64 inputs]       ─ cp.async ─┴ ring of kStages chunks needs no barrier
//        → mma → 16 × rows sums a warp → shared memory → 8 added → epilogue
//
// Weights are fetched before the kernel's input is known (chain.cuh): the ring is full when the
// kernel before ends. Of lane 4g + t, a chunk's inputs 8t … 8t+7 and 32 + 8t … stand in for k = 2t,
// 2t+1, 2t+8, 2t+9 of four products: any order of k will do that W and x share.

#include <algorithm>
#include <type_traits>

#include "engine/model/cuda/chain.cuh"
#include "engine/model/cuda/product.cuh"

namespace kvfs::model::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kChunk = 64;                             // inputs
constexpr int kTileBytes = kTileOutputs * kChunk * 2;  // of a chunk

// By rows: many rows are read as often as there are tiles, so a warp takes two tiles at once.
template <int kRows>
struct Shape {
  static constexpr bool kMany = kRows > 8;
  static constexpr int kTiles = kMany ? 2 : 1;
  static constexpr int kBlocksAnSm = kMany ? 1 : 2;
  static constexpr int kStages = kMany ? 4 : kRows > 1 ? 4 : 5;
  static constexpr int kColumns = kRows < 8 ? 8 : kRows;  // of the tensor cores' tiles
  static constexpr int kWeightBytes = kTiles * kTileBytes;
  static constexpr int kStageBytes = kWeightBytes + kRows * kChunk * 2;
  static constexpr int kWarpBytes = kStages * kStageBytes;
  static constexpr std::size_t kRingBytes = std::size_t{kWarps} * kWarpBytes;
};

// A warp's walk over its chunks of all the block's units.
template <int kWarps>
struct Walk {
  int unit;
  int chunk;
  __device__ void step(int first_chunk, int chunks) {
    chunk += kWarps;
    if (chunk >= chunks) {
      chunk = first_chunk;
      unit += static_cast<int>(gridDim.x);
    }
  }
};

template <int kRows, class T, class Epilogue>
__global__ void __launch_bounds__(kThreads, Shape<kRows>::kBlocksAnSm)
    linear_kernel(const ProductOf<T> p, const Epilogue epilogue) {
  using S = Shape<kRows>;
  extern __shared__ __align__(128) std::uint8_t ring[];
  // Two in turn, so that one barrier a tile is enough; + 4: no bank conflicts.
  __shared__ float sums[2][kWarps][S::kColumns][kTileOutputs + 4];
  __shared__ float scales[kMaxBatch];
  const int thread = static_cast<int>(threadIdx.x);
  const int warp = thread / 32;
  const int g = thread % 32 / 4;
  const int t = thread % 4;
  const int chunks = (p.inputs + kChunk - 1) / kChunk;
  const int units =
      (p.tiles + S::kTiles - 1) / S::kTiles;  // a unit: tiles that a warp takes at once
  std::uint8_t* mine = ring + warp * S::kWarpBytes;
  const int lane_at = thread % 32 * 16;

  const auto fetch_weights = [&](const Walk<kWarps>& walk, int stage) {
    if (walk.unit >= units || walk.chunk >= chunks) return;
    std::uint8_t* to = mine + stage * S::kStageBytes + lane_at;
    const int k = walk.chunk * kChunk + t * 8;
#pragma unroll
    for (int i = 0; i < 2 * S::kTiles; ++i) {
      const int tile = walk.unit * S::kTiles + i / 2;
      const int row = min(Epilogue::weight_row(p, tile, g + i % 2 * 8), p.outputs - 1);
      const auto* w = static_cast<const T*>(p.w);
      const T* from = w + std::int64_t{row} * p.inputs + k;
      std::uint8_t* at = to + i / 2 * kTileBytes + i % 2 * 512;
      copy16(at, k < p.inputs ? from : w, k < p.inputs);
      copy16(at + 1024, k + 32 < p.inputs ? from + 32 : w, k + 32 < p.inputs);
    }
  };
  const auto fetch_rows = [&](const Walk<kWarps>& walk, int stage) {
    if (walk.unit >= units || walk.chunk >= chunks) return;
    std::uint8_t* to = mine + stage * S::kStageBytes + S::kWeightBytes + t * 16;
    const int k = walk.chunk * kChunk + t * 8;
#pragma unroll
    for (int row = g; row < kRows; row += 8) {
      const T* from = p.x + std::int64_t{row} * p.inputs + k;
      const bool real = row < p.rows;
      copy16(to + row * 128, real && k < p.inputs ? from : p.x, real && k < p.inputs);
      copy16(to + row * 128 + 64, real && k + 32 < p.inputs ? from + 32 : p.x,
             real && k + 32 < p.inputs);
    }
  };

  const Walk<kWarps> start{static_cast<int>(blockIdx.x), warp};
  Walk<kWarps> ahead = start;
  for (int stage = 0; stage < S::kStages; ++stage) {
    fetch_weights(ahead, stage);
    ahead.step(warp, chunks);
  }
  close_copies();
  let_next_begin();
  wait_for_previous();
  Walk<kWarps> rows_ahead = start;
  for (int stage = 0; stage < S::kStages; ++stage) {
    fetch_rows(rows_ahead, stage);
    close_copies();
    rows_ahead.step(warp, chunks);
  }
  norm_scales<kWarps>(p, epilogue, scales);

  const int output = thread % kTileOutputs;
  const int row = thread / kTileOutputs;
  int stage = 0;
  int parity = 0;
  for (int unit = start.unit; unit < units; unit += static_cast<int>(gridDim.x)) {
    typename Epilogue::Fetched fetched[S::kTiles]{};
#pragma unroll
    for (int m = 0; m < S::kTiles; ++m) {
      if (row < S::kColumns) fetched[m] = epilogue.fetch(p, unit * S::kTiles + m, row, output);
    }
    float c[S::kTiles][S::kColumns / 8][4] = {};
    for (int chunk = warp; chunk < chunks; chunk += kWarps) {
      await_copies<S::kStages - 1>();
      const std::uint8_t* from = mine + stage * S::kStageBytes;
      uint4 b[S::kColumns / 8][2] = {};
#pragma unroll
      for (int n = 0; n < S::kColumns / 8; ++n) {
        if (g + 8 * n >= kRows) continue;
        const std::uint8_t* x = from + S::kWeightBytes + (g + 8 * n) * 128 + t * 16;
        b[n][0] = *reinterpret_cast<const uint4*>(x);
        b[n][1] = *reinterpret_cast<const uint4*>(x + 64);
      }
#pragma unroll
      for (int m = 0; m < S::kTiles; ++m) {
        uint4 a[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          a[i] = *reinterpret_cast<const uint4*>(from + m * kTileBytes + i * 512 + lane_at);
        }
#pragma unroll
        for (int n = 0; n < S::kColumns / 8; ++n) {
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const uint4& low = a[2 * half];
            const uint4& high = a[2 * half + 1];
            multiply_of<T>(c[m][n], low.x, high.x, low.y, high.y, b[n][half].x, b[n][half].y);
            multiply_of<T>(c[m][n], low.z, high.z, low.w, high.w, b[n][half].z, b[n][half].w);
          }
        }
      }
      fetch_weights(ahead, stage);
      fetch_rows(ahead, stage);
      close_copies();
      ahead.step(warp, chunks);
      stage = stage + 1 == S::kStages ? 0 : stage + 1;
    }
#pragma unroll
    for (int m = 0; m < S::kTiles; ++m) {
#pragma unroll
      for (int n = 0; n < S::kColumns / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int column = n * 8 + 2 * t + i % 2;
          if (kRows > 1 || column == 0) sums[parity][warp][column][g + 8 * (i / 2)] = c[m][n][i];
        }
      }
      __syncthreads();
      if (row < S::kColumns) {
        float sum = sums[parity][0][row][output];
#pragma unroll
        for (int w = 1; w < kWarps; ++w) sum += sums[parity][w][row][output];
        epilogue.take(p, unit * S::kTiles + m, row, output, sum,
                      Epilogue::kNormed ? scales[row] : 1.0F, fetched[m]);
      }
      parity ^= 1;
    }
  }
  await_copies<0>();
}

template <class T, class Epilogue>
cudaError_t launch(const Matrix& w, const void* x, int rows, int tiles, const Epilogue& epilogue,
                   FixedRows room, cudaStream_t stream) {
  const ProductOf<T> p{w.data, static_cast<const T*>(x), rows, w.outputs, w.inputs, tiles};
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    if (is_packed(w.kind)) {
      return rows == 1 ? launch_packed_row(w.kind, p, epilogue, stream)
                       : launch_packed_rows(w.kind, p, epilogue, room, stream);
    }
  }
  const auto with = [&]<int kRows>() {
    using S = Shape<kRows>;
    const int units = (tiles + S::kTiles - 1) / S::kTiles;
    const dim3 grid(static_cast<unsigned>(std::min(units, S::kBlocksAnSm * multiprocessors())));
    return launch_chained<linear_kernel<kRows, T, Epilogue>>(grid, kThreads, S::kRingBytes, stream,
                                                             p, epilogue);
  };
  if (rows == 1) return with.template operator()<1>();
  if (rows <= 8) return with.template operator()<8>();
  return with.template operator()<kMaxBatch>();
}

}  // namespace

cudaError_t project(const Matrix& w, NormRows in, float epsilon, int rows, float* y,
                    cudaStream_t stream, FixedRows room) {
  if (w.paired) return cudaErrorInvalidValue;
  const int tiles = (w.outputs + kTileOutputs - 1) / kTileOutputs;
  const StoreNormed epilogue{in.squares, w.inputs / kTileOutputs, epsilon, y};
  return for_activations(w.kind == WeightKind::kF16, [&]<class T>(T*) {
    return launch<T>(w, in.x, rows, tiles, epilogue, room, stream);
  });
}

cudaError_t gate(const Matrix& w, NormRows in, float epsilon, int rows, void* out,
                 cudaStream_t stream, FixedRows room) {
  if (is_packed(w.kind) && !w.paired) return cudaErrorInvalidValue;
  return for_activations(w.kind == WeightKind::kF16, [&]<class T>(T*) {
    const GateNormedOf<T> epilogue{in.squares, w.inputs / kTileOutputs, epsilon,
                                   static_cast<T*>(out)};
    return launch<T>(w, in.x, rows, w.outputs / kTileOutputs, epilogue, room, stream);
  });
}

cudaError_t add_product(const Matrix& w, const void* x, int rows, float* residual,
                        const float* norm_weight, NormRows next, cudaStream_t stream,
                        FixedRows room) {
  if (w.paired) return cudaErrorInvalidValue;
  return for_activations(w.kind == WeightKind::kF16, [&]<class T>(T*) {
    const AddAndNormOf<T> epilogue{residual, norm_weight, static_cast<T*>(next.x), next.squares};
    return launch<T>(w, x, rows, w.outputs / kTileOutputs, epilogue, room, stream);
  });
}

}  // namespace kvfs::model::cuda
