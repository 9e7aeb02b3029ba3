// What the read path's two attention kernels share: the tensor cores' older instructions
// (read_attention.cu) and Hopper's own (read_attention_sm90.cu) do the same with the same tiles.
//
// A block takes 128 neighbouring rows of the grid (a fixed tile of positions) of one head; each of
// its 8 warps 16 of them, whose queries, weights and sums stay in its registers: of lane 4g + t,
// rows g and g + 8. Keys come 64 at a time, from position 0 on:
//
//   K, V [64][width] ─ cp.async, some tiles ahead ─ a ring
//   scores = q · K → greatest so far → weights = 2^(score − greatest) → sums += weights · V
//
// A query's arithmetic depends on its own vector, its position and the keys up to that: tiles lie
// at fixed positions, what it does not see gets weight 0, and a tile of which it sees nothing
// changes nothing.
#pragma once

#include "engine/model/cuda/attention_tile.cuh"
#include "engine/model/cuda/read.h"

namespace kvfs::model::cuda {

inline constexpr int kReadWarps = 8;
inline constexpr int kReadThreads = 32 * kReadWarps;
inline constexpr int kTileRows = 16 * kReadWarps;
inline constexpr int kTileKeys = 64;
inline constexpr int kReadPageTokens = 256;

// A side of a tile in shared memory: [width / 64][64 keys][128 bytes], 16-byte piece p of key k in
// place p ^ (k % 8): what both kinds of instructions read without bank conflicts.
template <int kWidth>
inline constexpr int kSideBytes = kTileKeys* kWidth * 2;
__device__ __forceinline__ int in_side(int key, int piece) {
  return piece / 8 * (kTileKeys * 128) + key * 128 + ((piece % 8) ^ (key % 8)) * 16;
}

__device__ __forceinline__ float power_of_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

template <int kWidth>
struct Sums {
  float most[2] = {-INFINITY, -INFINITY};
  float total[2] = {};  // of this lane's keys
  float values[kWidth / 8][4] = {};
};

// What a block works on, and this warp of it.
template <int kWidth>
struct ReadBlock {
  ReadRows rows;
  KvPlace kv;
  int kv_head;
  int newest;            // position of the launch's last row
  int tiles;             // of keys
  int row;               // the warp's first
  int position;          // its
  __nv_bfloat16* at[2];  // this lane's two rows' heads, from column 2t on
  bool fp16;             // what it stores

  __device__ ReadBlock(__nv_bfloat16* rows_of, ReadRows rows_in, HeadShape shape, KvPlace kv_in,
                       bool fp16_in)
      : rows(rows_in), kv(kv_in), fp16(fp16_in) {
    const int warp = static_cast<int>(threadIdx.x) / 32;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int head = static_cast<int>(blockIdx.x);
    // The longest histories first.
    const int tile = static_cast<int>(gridDim.y - 1 - blockIdx.y);
    const int first = (rows.first / kTileRows + tile) * kTileRows;
    const int first_position = rows.position - rows.first + first;
    kv_head = head / (shape.heads / shape.kv_heads);
    newest = rows.position + rows.count - 1;
    tiles = min(first_position + kTileRows - 1, newest) / kTileKeys + 1;
    row = first + warp * 16;
    position = first_position + warp * 16;
    const std::int64_t pitch = std::int64_t{shape.heads} * kWidth;
    at[0] = rows_of + (row + lane / 4) * pitch + head * kWidth + lane % 4 * 2;
    at[1] = at[0] + 8 * pitch;
  }

  // As the tensor cores' a.
  __device__ void load_queries(unsigned (&q)[kWidth / 16][4]) const {
#pragma unroll
    for (int step = 0; step < kWidth / 16; ++step) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        q[step][i] = *reinterpret_cast<const unsigned*>(at[i % 2] + step * 16 + i / 2 * 8);
      }
    }
  }

  // Keys and values of a tile; zeros past the newest.
  __device__ __forceinline__ void fetch(int tile, std::uint8_t* to) const {
    constexpr int kPieces = kWidth / 8;
    constexpr int kKeysAtOnce = kReadThreads / kPieces;  // a multiple of 8: pieces stay in place
    const int first = tile * kTileKeys;
    const auto* page = static_cast<const __nv_bfloat16*>(kv.pages[first / kReadPageTokens]);
    const int key = static_cast<int>(threadIdx.x) / kPieces;
    const int piece = static_cast<int>(threadIdx.x) % kPieces;
    const __nv_bfloat16* from =
        page + (kv_head * kReadPageTokens + first % kReadPageTokens + key) * kWidth + piece * 8;
    to += in_side(key, piece);
#pragma unroll
    for (int i = 0; i < kTileKeys / kKeysAtOnce; ++i) {
      const bool there = first + key + i * kKeysAtOnce <= newest;
      const __nv_bfloat16* row = from + i * kKeysAtOnce * kWidth;
      copy16(to + i * kKeysAtOnce * 128, row + kv.key_offset, there);
      copy16(to + i * kKeysAtOnce * 128 + kSideBytes<kWidth>, row + kv.value_offset, there);
    }
  }

  // Scores of what a row does not see become none.
  __device__ __forceinline__ void mask(int tile, float (&c)[8][4]) const {
    const int first = tile * kTileKeys;
    if (first + kTileKeys - 1 <= position) return;  // the warp's first row sees all
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int n = 0; n < 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (first + n * 8 + lane % 4 * 2 + i % 2 > position + lane / 4 + i / 2 * 8) {
          c[n][i] = -INFINITY;
        }
      }
    }
  }

  __device__ __forceinline__ void store(const Sums<kWidth>& sums) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float total = sums.total[half];
      total += __shfl_xor_sync(0xffffffffU, total, 1);
      total += __shfl_xor_sync(0xffffffffU, total, 2);
      const float share = 1.0F / total;
      const int mine = row + lane / 4 + 8 * half;
      if (mine < rows.first || mine >= rows.first + rows.count) continue;
#pragma unroll
      for (int n = 0; n < kWidth / 8; ++n) {
        const float low = sums.values[n][2 * half] * share;
        const float high = sums.values[n][2 * half + 1] * share;
        *reinterpret_cast<unsigned*>(at[half] + n * 8) =
            fp16 ? pack_of<__half>(low, high) : pack(low, high);
      }
    }
  }
};

// Scores → weights; scale: what the sums so far must be multiplied by.
template <int kWidth>
__device__ __forceinline__ void weights_of(float (&c)[8][4], Sums<kWidth>& sums,
                                           float (&scale)[2]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float most = sums.most[half];
#pragma unroll
    for (int n = 0; n < 8; ++n) most = fmaxf(most, fmaxf(c[n][2 * half], c[n][2 * half + 1]));
    most = fmaxf(most, __shfl_xor_sync(0xffffffffU, most, 1));
    most = fmaxf(most, __shfl_xor_sync(0xffffffffU, most, 2));
    scale[half] = power_of_two(sums.most[half] - most);
    sums.most[half] = most;
    float total = 0.0F;
#pragma unroll
    for (int n = 0; n < 8; ++n) {
#pragma unroll
      for (int i = 2 * half; i < 2 * half + 2; ++i) {
        c[n][i] = power_of_two(c[n][i] - most);
        total += c[n][i];
      }
    }
    sums.total[half] = fmaf(sums.total[half], scale[half], total);
  }
}

template <int kWidth>
__device__ __forceinline__ void rescale(const float (&scale)[2], Sums<kWidth>& sums) {
#pragma unroll
  for (int n = 0; n < kWidth / 8; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) sums.values[n][i] *= scale[i / 2];
  }
}

// Weights of keys 16·step … as the tensor cores' a.
__device__ __forceinline__ void packed_weights(const float (&c)[8][4], int step, unsigned (&w)[4]) {
  const float(&low)[4] = c[2 * step];
  const float(&high)[4] = c[2 * step + 1];
  w[0] = pack(low[0], low[1]), w[1] = pack(low[2], low[3]);
  w[2] = pack(high[0], high[1]), w[3] = pack(high[2], high[3]);
}

// Of read_attention_sm90.cu; cudaErrorNotSupported where the device is none that it runs on.
cudaError_t attend_rows_sm90(__nv_bfloat16* rows_of, ReadRows rows, HeadShape shape, KvPlace kv,
                             cudaStream_t stream, bool fp16);

inline dim3 read_grid(ReadRows rows, HeadShape shape) {
  const int tiles = (rows.first + rows.count - 1) / kTileRows - rows.first / kTileRows + 1;
  return {static_cast<unsigned>(shape.heads), static_cast<unsigned>(tiles)};
}

}  // namespace kvfs::model::cuda
