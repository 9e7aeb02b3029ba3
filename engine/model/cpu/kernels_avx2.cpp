// Compiled with -mavx2 -mfma -mf16c: nothing here may be reached before best_kernels() has asked
// the CPU.
#include "engine/model/cpu/kernels_impl.h"
#include "engine/model/cpu/simd_avx2.h"

namespace kvfs::model::cpu {

const Kernels& avx2_table();

const Kernels& avx2_table() {
  static constexpr Kernels kTable = KernelsOf<Avx2>::table("avx2");
  return kTable;
}

}  // namespace kvfs::model::cpu
