#include "engine/model/cpu/kernels.h"

#include "engine/model/cpu/kernels_impl.h"
#include "engine/model/cpu/simd_portable.h"

namespace kvfs::model::cpu {

// kernels_NAME.cpp
const Kernels& avx512vnni_table();
const Kernels& avxvnni_table();
const Kernels& avx2_table();

const Kernels& portable_kernels() {
  static constexpr Kernels kTable = KernelsOf<Portable>::table("portable");
  return kTable;
}

std::vector<const Kernels*> usable_kernels() {
  std::vector<const Kernels*> out;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("f16c")) {
    if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")) {
      out.push_back(&avx512vnni_table());
    }
    if (__builtin_cpu_supports("avxvnni")) out.push_back(&avxvnni_table());
    out.push_back(&avx2_table());
  }
#endif
  out.push_back(&portable_kernels());
  return out;
}

const Kernels& best_kernels() {
  static const Kernels& best = *usable_kernels().front();
  return best;
}

}  // namespace kvfs::model::cpu
