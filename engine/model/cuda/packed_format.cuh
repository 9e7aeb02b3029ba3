// decode_packed.h's layout, as kernels read it.
#pragma once

#include <cuda_fp16.h>

#include "engine/model/cuda/decode_packed.h"

namespace kvfs::model::cuda {

inline constexpr int kBlocks = kPackedChunk / kPackedBlock;  // of a chunk

template <WeightKind kKind>
struct Format {
  static constexpr int kPlanes = packed_planes(kKind);
  static constexpr int kBytes = packed_chunk_bytes(kKind);
  static constexpr bool kMinimums = kKind == WeightKind::kInt4Min;
  // Of a plane: that much is taken from its numbers.
  __host__ __device__ static constexpr float zero(int plane) {
    return kKind == WeightKind::kInt4Min || (kKind == WeightKind::kInt8 && plane == 0) ? 0.0F
                                                                                       : 8.0F;
  }
  // Of 128 + number, or 16 times that and a low plane's.
  static constexpr float kBias = kPlanes == 2 ? -16.0F * (128.0F + 8.0F) - 128.0F
                                 : kMinimums  ? -128.0F
                                              : -136.0F;
};

__device__ __forceinline__ unsigned word_of(const uint4& words, int i) {
  return i == 0 ? words.x : i == 1 ? words.y : i == 2 ? words.z : words.w;
}
__device__ __forceinline__ float half_of(const uint2& four, int i) {
  const unsigned both = i < 2 ? four.x : four.y;
  const __half2 two = *reinterpret_cast<const __half2*>(&both);
  return i % 2 == 0 ? __low2float(two) : __high2float(two);
}

}  // namespace kvfs::model::cuda
