// Kinds of weights that the CPU's kernels have no arithmetic of their own for, in kinds that they
// have: still quantized, 32 inputs to a scale. Plain functions on plain memory: any thread.
//
//   Q5_0 → Q8_0  exactly
//   Q4_K → Q4_1  the same sixteen steps; scale and minimum rounded to fp16
//   Q5_1, Q5_K, Q6_K → Q8_0  to the nearest of 255 steps: an error below 0.4 % of a block's largest
#pragma once

#include "codec/base/bytes.h"
#include "codec/container/gguf.h"

namespace kvfs::model {

// The kind it becomes; itself where the kernels know it.
container::GgmlType repacked_type(container::GgmlType type);

// One row of `columns` elements of that kind.
void repack_row(container::GgmlType type, ByteSpan source, std::size_t columns, Bytes& out);

}  // namespace kvfs::model
