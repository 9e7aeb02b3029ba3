#include "engine/model/dequantize.h"

#include <cmath>
#include <cstring>

namespace kvfs::model {

using container::GgmlType;

float fp16_to_float(std::uint16_t bits) {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000U) << 16;
  const std::uint32_t exponent = (bits >> 10) & 31U;
  const std::uint32_t mantissa = bits & 1023U;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000U | (mantissa << 13));
  if (exponent == 0) {  // zero and subnormals: mantissa · 2^-24
    const float value = static_cast<float>(mantissa) * 0x1p-24F;
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) | sign);
  }
  return std::bit_cast<float>(sign | ((exponent + 112U) << 23) | (mantissa << 13));
}

bool is_supported(GgmlType type) {
  switch (type) {
    case GgmlType::kF32:
    case GgmlType::kF16:
    case GgmlType::kBF16:
    case GgmlType::kQ4_0:
    case GgmlType::kQ4_1:
    case GgmlType::kQ8_0:
      return true;
    default:
      return false;
  }
}

namespace {

std::uint16_t half_at(const std::uint8_t* p) {
  std::uint16_t bits;
  std::memcpy(&bits, p, sizeof bits);
  return bits;
}

// Q4_0: d, 32 nibbles; Q4_1: d, m, 32 nibbles. Low nibbles are elements 0…15, high ones 16…31.
void dequantize_q4(bool has_min, const std::uint8_t* p, std::span<float> out) {
  const std::size_t stride = has_min ? 20 : 18;
  for (std::size_t block = 0; block < out.size() / 32; ++block, p += stride) {
    const float d = fp16_to_float(half_at(p));
    const float m = has_min ? fp16_to_float(half_at(p + 2)) : -8.0F * d;
    const std::uint8_t* nibbles = p + (has_min ? 4 : 2);
    for (std::size_t i = 0; i < 16; ++i) {
      out[32 * block + i] = d * static_cast<float>(nibbles[i] & 15) + m;
      out[32 * block + 16 + i] = d * static_cast<float>(nibbles[i] >> 4) + m;
    }
  }
}

void dequantize_q8(const std::uint8_t* p, std::span<float> out) {
  for (std::size_t block = 0; block < out.size() / 32; ++block, p += 34) {
    const float d = fp16_to_float(half_at(p));
    for (std::size_t i = 0; i < 32; ++i) {
      out[32 * block + i] = d * static_cast<float>(static_cast<std::int8_t>(p[2 + i]));
    }
  }
}

}  // namespace

void dequantize_row(GgmlType type, ByteSpan source, std::span<float> out) {
  const std::uint8_t* p = source.data();
  switch (type) {
    case GgmlType::kF32:
      std::memcpy(out.data(), p, out.size_bytes());
      return;
    case GgmlType::kF16:
      for (std::size_t i = 0; i < out.size(); ++i) out[i] = fp16_to_float(half_at(p + 2 * i));
      return;
    case GgmlType::kBF16:
      for (std::size_t i = 0; i < out.size(); ++i) out[i] = bf16_to_float(half_at(p + 2 * i));
      return;
    case GgmlType::kQ4_0:
      dequantize_q4(false, p, out);
      return;
    case GgmlType::kQ4_1:
      dequantize_q4(true, p, out);
      return;
    case GgmlType::kQ8_0:
      dequantize_q8(p, out);
      return;
    default:
      return;  // is_supported() was asked when the file was read
  }
}

std::size_t row_bytes(const container::GgufTensor& tensor) {
  return tensor.dims[0] / block_elements(tensor.type) * block_bytes(tensor.type);
}

ByteSpan row_of(const container::GgufTensor& tensor, std::size_t row) {
  const std::size_t bytes = row_bytes(tensor);
  return tensor.bytes.subspan(row * bytes, bytes);
}

}  // namespace kvfs::model
