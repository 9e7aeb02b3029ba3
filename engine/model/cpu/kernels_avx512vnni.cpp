// Compiled with -mavx512vnni -mavx512vl -mavx512bw -mavx512dq besides AVX2's flags: nothing here
// may be reached before best_kernels() has asked the CPU.
#include "engine/model/cpu/kernels_impl.h"
#include "engine/model/cpu/simd_avx512.h"

namespace kvfs::model::cpu {

const Kernels& avx512vnni_table();

const Kernels& avx512vnni_table() {
  static constexpr Kernels kTable = KernelsOf<Avx512>::table("avx512vnni");
  return kTable;
}

}  // namespace kvfs::model::cpu
