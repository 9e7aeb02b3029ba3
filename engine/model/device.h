// Which device a model runs on here, and what its kernels promise.
#pragma once

#include <string>

#include "codec/base/dtype.h"
#include "codec/base/result.h"
#include "engine/model/model.h"

namespace kvfs::model {

struct Device {
  bool cuda = false;
  int index = 0;
};

// kUnsupported when CUDA is asked for and this build or machine has none. Auto falls back to the
// CPU.
Result<Device> choose_device(const DeviceChoice& choice);

// What decides which states may share computed bits.
struct KernelClass {
  std::string name;
  DType kv_dtype = DType::kBF16;
  bool one_path = false;
};
// fp16: ModelInfo's.
KernelClass kernel_class(const Device& device, Compute compute, bool fp16);

}  // namespace kvfs::model
