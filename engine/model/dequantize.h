// Numbers of GGUF tensors, exactly, as fp32. Plain functions on plain memory: any thread.
#pragma once

#include <bit>
#include <cstdint>
#include <span>
#include <string>

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
std::uint16_t float_to_fp16(float value);  // to nearest, ties to even; too large: infinity

// The kinds that matrices may have here.
bool is_supported(container::GgmlType type);
std::string supported_types();  // "F32 F16 …", for errors

// One row of a matrix tensor, [columns] values of the given kind. source holds exactly one row.
void dequantize_row(container::GgmlType type, ByteSpan source, std::span<float> out);

// Scale and minimum of one of the eight groups of a Q4_K or Q5_K block, from its 12 bytes.
struct KScale {
  int scale;
  int minimum;
};
KScale k_scale(const std::uint8_t* packed, std::size_t group);

// Bytes of one row of a tensor: dims[0] elements.
std::size_t row_bytes(const container::GgufTensor& tensor);
// Row r of a tensor seen as [rows, dims[0]].
ByteSpan row_of(const container::GgufTensor& tensor, std::size_t row);

}  // namespace kvfs::model
