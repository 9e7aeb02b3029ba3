// Attention's arithmetic on one half page in shared memory: a warp multiplies 16 queries with 32
// keys, then their weights with the 32 values. See decode_attention.cu.
//
// Queries and weights are fp32 numbers given as two bf16, the second what the first lacks, so that
// only keys and values are as coarse as they are stored.
#pragma once

#include <cuda_bf16.h>

#include "engine/model/cuda/chain.cuh"

namespace kvfs::model::cuda {

inline constexpr int kHalfPage = 128;
inline constexpr int kKeyWarps = 4;  // of one tile of queries
inline constexpr int kWarpKeys = kHalfPage / kKeyWarps;
inline constexpr int kTileQueries = 16;

// Shared memory holds rows of 16-byte pieces, piece p of row r in place p ^ (r % 8), so that eight
// rows' pieces of one place lie in different banks. Where, in bytes:
template <int kWidth>
__device__ __forceinline__ int at(int row, int piece) {
  return row * (kWidth * 2) + ((piece ^ (row % 8)) * 16);
}
// Where elements i … i + 3 of a row are; i % 4 == 0.
template <int kWidth>
__device__ __forceinline__ uint2* quad(std::uint8_t* base, int row, int i) {
  return reinterpret_cast<uint2*>(base + at<kWidth>(row, i / 8) + i % 8 * 2);
}

// Four 8×8 matrices; lane l gives the address of row l % 8 of matrix l / 8.
__device__ __forceinline__ void load_matrices(unsigned (&out)[4], const std::uint8_t* row) {
  const auto from = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(from));
}
__device__ __forceinline__ void load_transposed(unsigned (&out)[4], const std::uint8_t* row) {
  const auto from = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(from));
}

// value ≈ high + low, to 16 bits.
struct Halves {
  unsigned high;
  unsigned low;
};
__device__ __forceinline__ Halves halve(float a, float b) {
  const __nv_bfloat162 high = __floats2bfloat162_rn(a, b);
  return {pack(a, b), pack(a - __low2float(high), b - __high2float(high))};
}

// c[16 queries × 32 keys of this warp] += their products.
template <int kWidth>
__device__ __forceinline__ void score(const std::uint8_t* keys, const std::uint8_t* queries,
                                      float (&c)[4][4]) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int first = static_cast<int>(threadIdx.x) / 32 % kKeyWarps * kWarpKeys;
#pragma unroll
  for (int step = 0; step < kWidth / 16; ++step) {
    unsigned high[4];
    unsigned low[4];
    const int at_query = at<kWidth>(lane % 16, 2 * step + lane / 16);
    load_matrices(high, queries + at_query);
    load_matrices(low, queries + kTileQueries * kWidth * 2 + at_query);
#pragma unroll
    for (int pair = 0; pair < 2; ++pair) {
      unsigned k[4];
      load_matrices(k, keys + at<kWidth>(first + pair * 16 + lane / 16 * 8 + lane % 8,
                                         2 * step + lane / 8 % 2));
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        multiply(c[2 * pair + n], high[0], high[1], high[2], high[3], k[2 * n], k[2 * n + 1]);
        multiply(c[2 * pair + n], low[0], low[1], low[2], low[3], k[2 * n], k[2 * n + 1]);
      }
    }
  }
}

// o[16 queries × width] += the sums over this warp's 32 keys, whose weights are p.
template <int kWidth>
__device__ __forceinline__ void weigh(const std::uint8_t* values, const float (&p)[4][4],
                                      float (&o)[kWidth / 8][4]) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int first = static_cast<int>(threadIdx.x) / 32 % kKeyWarps * kWarpKeys;
#pragma unroll
  for (int step = 0; step < 2; ++step) {
    unsigned high[4];
    unsigned low[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float* pair = p[2 * step + i / 2] + i % 2 * 2;
      const Halves halves = halve(pair[0], pair[1]);
      high[i] = halves.high;
      low[i] = halves.low;
    }
#pragma unroll
    for (int pair = 0; pair < kWidth / 16; ++pair) {
      unsigned v[4];
      load_transposed(v, values + at<kWidth>(first + step * 16 + lane / 8 % 2 * 8 + lane % 8,
                                             2 * pair + lane / 16));
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        multiply(o[2 * pair + n], high[0], high[1], high[2], high[3], v[2 * n], v[2 * n + 1]);
        multiply(o[2 * pair + n], low[0], low[1], low[2], low[3], v[2 * n], v[2 * n + 1]);
      }
    }
  }
}

}  // namespace kvfs::model::cuda
