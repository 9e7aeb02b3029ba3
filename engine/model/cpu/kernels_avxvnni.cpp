// Compiled with -mavxvnni besides AVX2's flags: nothing here may be reached before
// best_kernels() has asked the CPU.
#include "engine/model/cpu/kernels_impl.h"
#include "engine/model/cpu/simd_vnni.h"

namespace kvfs::model::cpu {

const Kernels& avxvnni_table();

const Kernels& avxvnni_table() {
  static constexpr Kernels kTable = KernelsOf<Vnni<4>>::table("avxvnni");
  return kTable;
}

}  // namespace kvfs::model::cpu
