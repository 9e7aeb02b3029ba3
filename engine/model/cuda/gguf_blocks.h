// GGUF's quantized rows, block by block, as the device keeps them (decode_packed.h). Plain
// functions on plain memory: any thread.
#pragma once

#include <optional>

#include "engine/model/architecture.h"
#include "engine/model/cuda/decode_packed.h"

namespace kvfs::model::cuda {

// What the matrix can be kept as without loss (of Q4_K, but for its scales' last bits); nothing:
// its numbers must be converted.
std::optional<WeightKind> packed_kind(const Linear& linear);

// Inputs 32·index … of one row of a matrix of `type`, for a device matrix of `kind`, which
// packed_kind gave for it.
WeightBlock weight_block(container::GgmlType type, ByteSpan row, int index, WeightKind kind);

}  // namespace kvfs::model::cuda
