// decode_packed.h's layout, as kernels read it.
#pragma once

#include <cuda_fp16.h>

#include "engine/model/cuda/decode_packed.h"

namespace kvfs::model::cuda {

inline constexpr int kBlocks = kPackedChunk / kPackedBlock;  // of a chunk

// The order in which a tile's sums are added: of row_warps() warps, warp w takes segments w,
// w + row_warps() … of kSegment chunks; within it the blocks of a chunk are four sums, added last.
inline constexpr int kSegment = 2;
inline constexpr int kMostRowWarps = 16;
__host__ __device__ constexpr int row_warps(int chunks) { return chunks > 32 ? kMostRowWarps : 8; }

template <WeightKind kKind>
struct Format {
  static constexpr int kPlanes = packed_planes(kKind);
  static constexpr int kBytes = packed_chunk_bytes(kKind);
  static constexpr bool kMinimums = kKind == WeightKind::kInt4Min;
  static constexpr bool kSigned = !kMinimums;
  static constexpr int kShift = kPlanes == 1 ? 4 : 0;  // nibbles are taken as bytes' upper halves
};

__device__ __forceinline__ unsigned word_of(const uint4& words, int i) {
  return i == 0 ? words.x : i == 1 ? words.y : i == 2 ? words.z : words.w;
}
// An output's (of g: 0, of g + 8: 1) of a pair of scales.
__device__ __forceinline__ float half_of(unsigned pair, int i) {
  const __half2 two = *reinterpret_cast<const __half2*>(&pair);
  return i == 0 ? __low2float(two) : __high2float(two);
}

// Eight neighbours of a block as two words of bytes, times 2^kShift.
struct Eight {
  unsigned first;
  unsigned second;
};
template <WeightKind kKind>
__device__ __forceinline__ Eight eight_of(const uint4 (&planes)[packed_planes(kKind)], int block) {
  if constexpr (packed_planes(kKind) == 2) {
    return {word_of(planes[0], block), word_of(planes[1], block)};
  } else {
    const unsigned word = word_of(planes[0], block);
    return {word << 4 & 0xf0f0f0f0U, word & 0xf0f0f0f0U};
  }
}

}  // namespace kvfs::model::cuda
