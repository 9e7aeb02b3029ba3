#include "engine/model/cpu/kernels.h"

#include "engine/model/cpu/kernels_impl.h"
#include "engine/model/cpu/simd_portable.h"

namespace kvfs::model::cpu {

const Kernels& avx2_table();  // kernels_avx2.cpp

const Kernels& portable_kernels() {
  static constexpr Kernels kTable = KernelsOf<Portable>::table("portable");
  return kTable;
}

const Kernels* avx2_kernels() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("f16c")) {
    return &avx2_table();
  }
#endif
  return nullptr;
}

const Kernels& best_kernels() {
  const Kernels* fast = avx2_kernels();
  return fast != nullptr ? *fast : portable_kernels();
}

}  // namespace kvfs::model::cpu
