// What becomes of a product's sums, and what its kernels share: decode_linear.cu's bf16 and
// fp16 weights, decode_packed.cu's of fewer bits.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "engine/model/cuda/decode.h"
#include "engine/model/cuda/numbers.cuh"

namespace kvfs::model::cuda {

template <class T>
struct ProductOf {
  const void* w;
  const T* x;  // [rows][inputs]
  int rows;
  int outputs;
  int inputs;
  int tiles;
};
using Product = ProductOf<__nv_bfloat16>;

// What becomes of a sum. fetch() is called before the sums are there, take() by the threads of one
// row, 16 neighbouring lanes, lane i with output i of the tile.
struct StoreNormed {
  const float* squares;  // [rows][squares_count]
  int squares_count;
  float epsilon;
  float* y;

  static constexpr bool kNormed = true;
  struct Fetched {};
  template <class P>
  __device__ static int weight_row(const P&, int tile, int i) {
    return tile * kTileOutputs + i;
  }
  template <class P>
  __device__ Fetched fetch(const P&, int, int, int) const {
    return {};
  }
  template <class P>
  __device__ void take(const P& p, int tile, int row, int i, float sum, float scale,
                       Fetched) const {
    const int output = tile * kTileOutputs + i;
    if (row < p.rows && output < p.outputs) {
      y[std::int64_t{row} * p.outputs + output] = sum * scale;
    }
  }
};

// A tile is 8 gates and their 8 ups.
template <class T>
struct GateNormedOf {
  const float* squares;
  int squares_count;
  float epsilon;
  T* out;

  static constexpr bool kNormed = true;
  struct Fetched {};
  template <class P>
  __device__ static int weight_row(const P& p, int tile, int i) {
    return tile * 8 + i % 8 + (i < 8 ? 0 : p.outputs / 2);
  }
  template <class P>
  __device__ Fetched fetch(const P&, int, int, int) const {
    return {};
  }
  template <class P>
  __device__ void take(const P& p, int tile, int row, int i, float sum, float scale,
                       Fetched) const {
    const float value = sum * scale;
    const float up = __shfl_down_sync(0xffffffffU, value, 8, 16);
    if (row < p.rows && i < 8 && tile < p.tiles) {
      out[std::int64_t{row} * (p.outputs / 2) + tile * 8 + i] =
          from_float<T>(value / (1.0F + expf(-value)) * up);
    }
  }
};

using GateNormed = GateNormedOf<__nv_bfloat16>;

template <class T>
struct AddAndNormOf {
  float* residual;
  const float* norm_weight;
  T* next;
  float* next_squares;

  static constexpr bool kNormed = false;
  struct Fetched {
    float residual;
    float weight;
  };
  template <class P>
  __device__ static int weight_row(const P&, int tile, int i) {
    return tile * kTileOutputs + i;
  }
  template <class P>
  __device__ Fetched fetch(const P& p, int tile, int row, int i) const {
    if (row >= p.rows || tile >= p.tiles) return {0.0F, 0.0F};
    const int output = tile * kTileOutputs + i;
    return {__ldcg(&residual[std::int64_t{row} * p.outputs + output]), norm_weight[output]};
  }
  template <class P>
  __device__ void take(const P& p, int tile, int row, int i, float sum, float,
                       Fetched fetched) const {
    const float value = fetched.residual + sum;
    float square = value * value;
    for (int d = 8; d > 0; d /= 2) square += __shfl_xor_sync(0xffffffffU, square, d, 16);
    if (row >= p.rows || tile >= p.tiles) return;
    const std::int64_t at = std::int64_t{row} * p.outputs + tile * kTileOutputs + i;
    residual[at] = value;
    next[at] = from_float<T>(value * fetched.weight);
    if (i == 0) next_squares[std::int64_t{row} * p.tiles + tile] = square;
  }
};

using AddAndNorm = AddAndNormOf<__nv_bfloat16>;

// 1 / rms of each row, from its sums of squares: a warp a row, then as many rows on; the last
// warps, which have the fewest chunks, first.
template <int kWarps, class P, class Epilogue>
__device__ __forceinline__ void norm_scales(const P& p, const Epilogue& epilogue, float* scales) {
  if constexpr (Epilogue::kNormed) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    for (int row = kWarps - 1 - static_cast<int>(threadIdx.x) / 32; row < p.rows; row += kWarps) {
      const float* mine = epilogue.squares + std::int64_t{row} * epilogue.squares_count;
      float sum = 0.0F;
      constexpr int kAtOnce = 8;  // on their way
      for (int begin = lane; begin < epilogue.squares_count; begin += 32 * kAtOnce) {
        float v[kAtOnce];
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) {
          v[i] = begin + 32 * i < epilogue.squares_count ? __ldcg(&mine[begin + 32 * i]) : 0.0F;
        }
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) sum += v[i];
      }
      for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(0xffffffffU, sum, d);
      if (lane == 0) {
        scales[row] = 1.0F / sqrtf(sum / static_cast<float>(p.inputs) + epilogue.epsilon);
      }
    }
  }
}

// 1 where that cannot be known: right, if slow.
inline int multiprocessors() {
  int device = 0;
  int out = 1;
  if (cudaGetDevice(&device) == cudaSuccess) {
    cudaDeviceGetAttribute(&out, cudaDevAttrMultiProcessorCount, device);
  }
  return out;
}

// Of decode_packed.cu and decode_packed_rows.cu, for the three epilogues above in bf16.
template <class Epilogue>
cudaError_t launch_packed_row(WeightKind kind, const Product& p, const Epilogue& epilogue,
                              cudaStream_t stream);
template <class Epilogue>
cudaError_t launch_packed_rows(WeightKind kind, const Product& p, const Epilogue& epilogue,
                               FixedRows room, cudaStream_t stream);

}  // namespace kvfs::model::cuda
