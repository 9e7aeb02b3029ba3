// The angles that positions turn keys and queries by.
#pragma once

#include "engine/model/cuda/kernels.h"

namespace kvfs::model::cuda {

// Of pair (dimension, dimension + pairs), times the magnitude.
__device__ __forceinline__ float2 cosine_and_sine(const Turning& turning, int position,
                                                  int dimension) {
  const float* frequencies =
      turning.late != nullptr && position >= turning.late_from ? turning.late : turning.frequencies;
  float sine;
  float cosine;
  sincosf(static_cast<float>(position) * frequencies[dimension], &sine, &cosine);
  return {cosine * turning.magnitude, sine * turning.magnitude};
}

}  // namespace kvfs::model::cuda
