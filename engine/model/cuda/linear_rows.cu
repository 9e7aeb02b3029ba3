// Matrix times up to 16 activation rows: the product of the generated path.
//
// A warp computes one output for all rows: lane l takes inputs 8l … 8l+7, then 256 further on, and
// so on; the 32 lanes' sums meet in a fixed tree. A row's sum therefore never depends on its
// company, and the weights, which bound the time, are read once, 16 bytes a lane.

#include "engine/model/cuda/kernels.h"
#include "engine/model/cuda/numbers.cuh"

namespace kvfs::model::cuda {
namespace {

constexpr int kWarps = 4;  // outputs a block

template <class T, int kRows>
__global__ void linear_rows_kernel(const T* __restrict__ w, const T* __restrict__ x, int rows,
                                   int outputs, int inputs, bool add, float* __restrict__ y) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int output = static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / 32;
  if (output >= outputs) return;
  const T* weights = w + std::int64_t{output} * inputs;
  float sums[kRows] = {};
  for (int k = lane * 8; k < inputs; k += 32 * 8) {
    float a[8];
    load8(weights + k, a);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (r >= rows) break;
      float b[8];
      load8(x + std::int64_t{r} * inputs + k, b);
#pragma unroll
      for (int i = 0; i < 8; ++i) sums[r] = fmaf(a[i], b[i], sums[r]);
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (r >= rows) break;
    float sum = sums[r];
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
      sum += __shfl_xor_sync(0xffffffffU, sum, distance);
    }
    if (lane == 0) {
      float* target = y + std::int64_t{r} * outputs + output;
      *target = add ? *target + sum : sum;
    }
  }
}

}  // namespace

template <class T>
cudaError_t linear_rows(const T* w, const T* x, int rows, int outputs, int inputs, bool add,
                        float* y, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>((outputs + kWarps - 1) / kWarps);
  const auto launch = [&](auto kernel) {
    kernel<<<blocks, kWarps * 32, 0, stream>>>(w, x, rows, outputs, inputs, add, y);
    return cudaGetLastError();
  };
  if (rows == 1) return launch(linear_rows_kernel<T, 1>);
  if (rows <= 4) return launch(linear_rows_kernel<T, 4>);
  return launch(linear_rows_kernel<T, kMaxBatch>);
}

template cudaError_t linear_rows(const float*, const float*, int, int, int, bool, float*,
                                 cudaStream_t);
template cudaError_t linear_rows(const __nv_bfloat16*, const __nv_bfloat16*, int, int, int, bool,
                                 float*, cudaStream_t);
template cudaError_t linear_rows(const __half*, const __half*, int, int, int, bool, float*,
                                 cudaStream_t);

}  // namespace kvfs::model::cuda
