// A tensor in memory that someone else owns.
#pragma once

#include <cstdint>
#include <vector>

#include "codec/base/bytes.h"
#include "codec/base/dtype.h"

namespace kvfs::container {

struct TensorView {
  DType dtype = DType::kBF16;
  std::vector<std::uint64_t> shape;
  ByteSpan bytes;  // row-major, at any alignment
};

}  // namespace kvfs::container
