// Numbers of GGUF tensors, exactly, as fp32. Plain functions on plain memory: any thread.
#pragma once

#include <bit>
#include <cstdint>
#include <span>

#include "codec/base/result.h"
#include "codec/container/gguf.h"

namespace kvfs::model {

inline float bf16_to_float(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}
// To nearest, ties to even; NaN stays NaN.
inline std::uint16_t float_to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U) return static_cast<std::uint16_t>((bits >> 16) | 0x40U);
  return static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}
float fp16_to_float(std::uint16_t bits);

// The kinds that matrices may have here: F32, F16, BF16, Q4_0, Q4_1, Q8_0.
bool is_supported(container::GgmlType type);

// One row of a matrix tensor, [columns] values of the given kind. source holds exactly one row.
void dequantize_row(container::GgmlType type, ByteSpan source, std::span<float> out);

// Bytes of one row of a tensor: dims[0] elements.
std::size_t row_bytes(const container::GgufTensor& tensor);
// Row r of a tensor seen as [rows, dims[0]].
ByteSpan row_of(const container::GgufTensor& tensor, std::size_t row);

}  // namespace kvfs::model
