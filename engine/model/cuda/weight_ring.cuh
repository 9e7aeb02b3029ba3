// A warp's ring of stages in shared memory, each filled by one copy of neighbouring bytes and
// awaited by the whole warp: the copy engine's where there is one, else cp.async of all lanes.
#pragma once

#include <cstdint>

#include "engine/model/cuda/chain.cuh"

namespace kvfs::model::cuda {

#if __CUDA_ARCH__ >= 900
#define KVFS_BULK_COPIES 1
#endif

// Of one stage. `bar`: its 8 bytes of shared memory. By one lane, once.
__device__ __forceinline__ void open_stage(unsigned bar) {
#if defined(KVFS_BULK_COPIES)
  asm volatile("mbarrier.init.shared.b64 [%0], 1;" ::"r"(bar) : "memory");
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#elif __CUDA_ARCH__ >= 800
  asm volatile("mbarrier.init.shared.b64 [%0], 32;" ::"r"(bar) : "memory");
#endif
}

// bytes % 16 == 0, as are both addresses. By the whole warp, which has read what was there.
__device__ __forceinline__ void fill_stage(unsigned to, const std::uint8_t* from, int bytes,
                                           unsigned bar, int lane) {
#if defined(KVFS_BULK_COPIES)
  if (lane == 0) {
    asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes)
                 : "memory");
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
            "r"(to),
        "l"(from), "r"(bytes), "r"(bar)
        : "memory");
  }
#elif __CUDA_ARCH__ >= 800
  for (int at = lane * 16; at < bytes; at += 512) {
    copy16(to + static_cast<unsigned>(at), from + at, true);
  }
  asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(bar) : "memory");
#else
  __trap();  // older devices take the general kernels
#endif
}

// Until the stage's fill number `parity`, modulo two, is there.
__device__ __forceinline__ void await_stage(unsigned bar, unsigned parity) {
#if __CUDA_ARCH__ >= 800
  unsigned there = 0;
  do {
#if __CUDA_ARCH__ >= 900
    asm volatile(
        "{ .reg .pred p; mbarrier.try_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
        : "=r"(there)
        : "r"(bar), "r"(parity)
        : "memory");
#else
    asm volatile(
        "{ .reg .pred p; mbarrier.test_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
        : "=r"(there)
        : "r"(bar), "r"(parity)
        : "memory");
#endif
  } while (there == 0);
#else
  __trap();  // older devices take the general kernels
#endif
}

__device__ __forceinline__ uint4 shared16(unsigned at) {
  uint4 out;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(out.x), "=r"(out.y), "=r"(out.z), "=r"(out.w)
               : "r"(at));
  return out;
}
__device__ __forceinline__ unsigned shared4(unsigned at) {
  unsigned out;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(out) : "r"(at));
  return out;
}

}  // namespace kvfs::model::cuda
