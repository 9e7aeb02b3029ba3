// Activations as integers for the tensor cores: q = 256 · high + low of 15 bits, one power of two
// for 32 neighbours, so that a block's products with whole numbers are exact, whoever adds them.
//
// Of bf16 that is all there is where a number has at least 1 / 64 of its block's greatest; the rest
// is off by at most 2^-14 of that greatest. Infinities and NaNs make their block NaN. A piece is
// eight neighbours, and 16 bytes: high of 0 … 3, of 4 … 7, then low of the same.
#pragma once

#include <cstdint>

#include "engine/model/cuda/decode_packed.h"

namespace kvfs::model::cuda {

// Of 32 neighbours. The weights come times 2^kShift, which `scale` takes away again.
struct FixedScale {
  float scale;
  float sum;  // of the neighbours
};

// In memory, of a chunk: its four blocks' scales, then their sums.
inline constexpr int kChunkScales = 2 * kPackedChunk / kPackedBlock;
__device__ __forceinline__ void put_scale(float* scales, int piece, const FixedScale& scale) {
  float* to = scales + piece / 16 * kChunkScales + piece % 16 / 4;
  to[0] = scale.scale;
  to[kChunkScales / 2] = scale.sum;
}

struct FixedPiece {
  uint4 bytes;
  FixedScale scale;  // of the block, in each of its four lanes
};

__device__ __forceinline__ unsigned bytes_of(unsigned a, unsigned b, unsigned selector) {
  return __byte_perm(a, b, selector);
}

// Eight neighbours of bf16 → the piece; lanes 4i … 4i + 3 of a warp are a block.
template <int kShift>
__device__ __forceinline__ FixedPiece fixed_piece(const uint4& x) {
  const unsigned words[4] = {x.x, x.y, x.z, x.w};
  unsigned most = 0;
#pragma unroll
  for (const unsigned word : words) most = __vmaxu2(most, word & 0x7fff7fffU);
  most = max(most >> 16, most & 0xffffU);
  most = max(most, __shfl_xor_sync(0xffffffffU, most, 1));
  most = max(most, __shfl_xor_sync(0xffffffffU, most, 2));
  const int given = static_cast<int>(most >> 7);
  const int exponent = max(given, 32);  // the scales stay normal
  // 13 bits before the point of a number of that exponent; 2^(exponent − 127 − 13 − kShift) back.
  const float up = __int_as_float((2 * 127 + 13 - exponent) << 23);
  float down = __int_as_float((exponent - 13 - kShift) << 23);
  if (given == 255) down = __int_as_float(0x7fffffff);
  constexpr float kRound = 12582912.0F + 128.0F;  // 1.5 · 2^23: units are the last bit
  unsigned pairs[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float a = fmaf(__uint_as_float(words[i] << 16), up, kRound);
    const float b = fmaf(__uint_as_float(words[i] & 0xffff0000U), up, kRound);
    pairs[i] = bytes_of(__float_as_uint(a), __float_as_uint(b), 0x5140);
  }
  FixedPiece out;
  out.bytes = {bytes_of(pairs[0], pairs[1], 0x7632), bytes_of(pairs[2], pairs[3], 0x7632),
               bytes_of(pairs[0], pairs[1], 0x5410) ^ 0x80808080U,
               bytes_of(pairs[2], pairs[3], 0x5410) ^ 0x80808080U};
  constexpr int kOnes = 0x01010101;
  int sum = __dp4a(static_cast<int>(out.bytes.x), kOnes,
                   __dp4a(static_cast<int>(out.bytes.y), kOnes, 0)) *
            256;
  sum = __dp4a(static_cast<int>(out.bytes.z), kOnes, sum);
  sum = __dp4a(static_cast<int>(out.bytes.w), kOnes, sum);
  sum += __shfl_xor_sync(0xffffffffU, sum, 1);
  sum += __shfl_xor_sync(0xffffffffU, sum, 2);
  out.scale = {down, static_cast<float>(sum) * (down * static_cast<float>(1 << kShift))};
  return out;
}

// c[16×8] += a[16×32] · b[32×8] of bytes, exactly. Of lane 4g + t: a is (row g | g + 8, k 4t …
// 4t + 3), then the same for k + 16; b is (k 4t … | + 16, column g); c is (row g, columns 2t,
// 2t + 1), then row g + 8.
template <bool kSigned>
__device__ __forceinline__ void multiply_bytes(int (&c)[4], unsigned a0, unsigned a1, unsigned a2,
                                               unsigned a3, unsigned b0, unsigned b1) {
#if __CUDA_ARCH__ >= 800
  if constexpr (kSigned) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  } else {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  }
#else
  __trap();  // older devices take the general kernels
#endif
}

}  // namespace kvfs::model::cuda
