// What the generated path's kernels share: launches that overlap the kernel before them, copies
// into shared memory that nobody waits for, and the tensor cores' 16×8×16 product.
//
// A chained kernel may begin while those before it still run: what it does before
// wait_for_previous() may touch only what no kernel of this step writes (weights, finished KV, the
// step's tables). Every block of it waits, and a kernel ends after its last block, so that what
// runs past the wait knows that all kernels before it are done, however many began early. When it
// lets its own follower begin is a matter of speed alone: followers take what room the device has
// left, and fill it with their first bytes. Needs sm_90; elsewhere the launches are plain ones in
// stream order.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "engine/model/cuda/numbers.cuh"

namespace kvfs::model::cuda {

__device__ __forceinline__ void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ __forceinline__ void let_next_begin() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Launches kKernel<<<grid, threads, shared>>>, chained where its code on this device has the two
// above.
template <auto kKernel, class... Arguments>
cudaError_t launch_chained(dim3 grid, unsigned threads, std::size_t shared, cudaStream_t stream,
                           Arguments... arguments) {
  cudaFuncAttributes attributes{};
  cudaError_t error = cudaFuncGetAttributes(&attributes, kKernel);
  if (error == cudaSuccess && shared > 48 * 1024) {
    error = cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 static_cast<int>(shared));
  }
  if (error != cudaSuccess) return error;
  cudaLaunchAttribute overlap{};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  config.attrs = &overlap;
  config.numAttrs = attributes.binaryVersion >= 90 ? 1 : 0;
  return cudaLaunchKernelEx(&config, kKernel, arguments...);
}

// 16 bytes from global to shared memory; zeros when they are not `there`.
__device__ __forceinline__ unsigned in_shared(const void* shared) {
  return static_cast<unsigned>(__cvta_generic_to_shared(shared));
}
__device__ __forceinline__ void copy16(unsigned at, const void* global, bool there) {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(at), "l"(global),
               "r"(there ? 16 : 0)
               : "memory");
#else
  __trap();    // older devices take the general kernels
#endif
}
__device__ __forceinline__ void copy16(void* shared, const void* global, bool there) {
  copy16(in_shared(shared), global, there);
}
__device__ __forceinline__ void close_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#else
  __trap();    // older devices take the general kernels
#endif
}
// Until all groups but the latest kLeft are there.
template <int kLeft>
__device__ __forceinline__ void await_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
#else
  __trap();    // older devices take the general kernels
#endif
}

// c[16×8] += a[16×16] · b[16×8], bf16 in, fp32 out. Every column of b, and every row of a, is
// summed alike whatever the others hold. Of lane 4g + t: a is (row g | g + 8, k 2t, 2t + 1), then
// the same for k + 8; b is (k 2t, 2t + 1 | + 8, column g); c is (row g, columns 2t, 2t + 1), then
// row g + 8.
__device__ __forceinline__ void multiply(float (&c)[4], unsigned a0, unsigned a1, unsigned a2,
                                         unsigned a3, unsigned b0, unsigned b1) {
#if __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
      "{%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
#else
  __trap();    // older devices take the general kernels
#endif
}
// The same of bf16 or fp16.
template <class T>
__device__ __forceinline__ void multiply_of(float (&c)[4], unsigned a0, unsigned a1, unsigned a2,
                                            unsigned a3, unsigned b0, unsigned b1) {
  if constexpr (std::is_same_v<T, __half>) {
#if __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
#else
    __trap();  // older devices take the general kernels
#endif
  } else {
    multiply(c, a0, a1, a2, a3, b0, b1);
  }
}
// From zero, bf16.
__device__ __forceinline__ void multiply_first(float (&c)[4], unsigned a0, unsigned a1, unsigned a2,
                                               unsigned a3, unsigned b0, unsigned b1) {
#if __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
      "{%8,%9}, {%10,%10,%10,%10};"
      : "=f"(c[0]), "=f"(c[1]), "=f"(c[2]), "=f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1), "f"(0.0F));
#else
  __trap();    // older devices take the general kernels
#endif
}

// Two neighbours, the first in the lower half.
__device__ __forceinline__ unsigned pack(float low, float high) {
  const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const unsigned*>(&both);
}
template <class T>
__device__ __forceinline__ unsigned pack_of(float low, float high) {
  if constexpr (std::is_same_v<T, __half>) {
    const __half2 both = __floats2half2_rn(within_half(low), within_half(high));
    return *reinterpret_cast<const unsigned*>(&both);
  } else {
    return pack(low, high);
  }
}

}  // namespace kvfs::model::cuda
