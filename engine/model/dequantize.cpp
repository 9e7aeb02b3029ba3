#include "engine/model/dequantize.h"

#include <algorithm>
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

std::uint16_t float_to_fp16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000U);
  const float magnitude = std::fabs(value);
  if (!(magnitude < 65520.0F))
    return static_cast<std::uint16_t>(sign | (std::isnan(value) ? 0x7e00U : 0x7c00U));
  if (magnitude == 0.0F) return sign;
  int exponent = 0;
  std::frexp(magnitude, &exponent);
  // The step between neighbours is 2^(exponent − 11), and no smaller than that of subnormals.
  const int step = std::max(exponent - 11, -24);
  const auto steps = static_cast<std::uint32_t>(std::nearbyint(std::ldexp(magnitude, -step)));
  // A carry into the next exponent does the right thing.
  return static_cast<std::uint16_t>(sign | (static_cast<std::uint32_t>(step + 24) * 1024U + steps));
}

namespace {
constexpr GgmlType kSupported[] = {GgmlType::kF32,  GgmlType::kF16,  GgmlType::kBF16,
                                   GgmlType::kQ4_0, GgmlType::kQ4_1, GgmlType::kQ5_0,
                                   GgmlType::kQ5_1, GgmlType::kQ8_0, GgmlType::kQ4_K,
                                   GgmlType::kQ5_K, GgmlType::kQ6_K};
}

bool is_supported(GgmlType type) {
  return std::ranges::find(kSupported, type) != std::end(kSupported);
}

std::string supported_types() {
  std::string out;
  for (const GgmlType type : kSupported)
    out += (out.empty() ? "" : " ") + std::string(name_of(type));
  return out;
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

// Q5_0: d, 32 fifth bits, 32 nibbles; Q5_1 has m after d. Laid out as Q4_0 and Q4_1.
void dequantize_q5(bool has_min, const std::uint8_t* p, std::span<float> out) {
  const std::size_t stride = has_min ? 24 : 22;
  for (std::size_t block = 0; block < out.size() / 32; ++block, p += stride) {
    const float d = fp16_to_float(half_at(p));
    const float m = has_min ? fp16_to_float(half_at(p + 2)) : -16.0F * d;
    const std::uint8_t* fifth = p + (has_min ? 4 : 2);
    const std::uint8_t* nibbles = fifth + 4;
    for (std::size_t i = 0; i < 32; ++i) {
      const int low = i < 16 ? nibbles[i] & 15 : nibbles[i - 16] >> 4;
      const int high = fifth[i / 8] >> (i % 8) & 1;
      out[32 * block + i] = d * static_cast<float>(low + 16 * high) + m;
    }
  }
}

// Q4_K and Q5_K, 256 elements: d, dmin, eight scales and minima of six bits in 12 bytes, (Q5_K: 32
// bytes whose bit g is the fifth bit of group g,) nibbles: 32 bytes hold a group of 32 in their low
// halves and the next in their high ones. w = d · scale · q − dmin · minimum.
void dequantize_k45(bool five, const std::uint8_t* p, std::span<float> out) {
  for (std::size_t block = 0; block < out.size() / 256; ++block, p += five ? 176 : 144) {
    const float d = fp16_to_float(half_at(p));
    const float dmin = fp16_to_float(half_at(p + 2));
    const std::uint8_t* fifth = p + 16;
    const std::uint8_t* nibbles = p + (five ? 48 : 16);
    for (std::size_t group = 0; group < 8; ++group) {
      const KScale scale = k_scale(p + 4, group);
      const float step = d * static_cast<float>(scale.scale);
      const float minimum = dmin * static_cast<float>(scale.minimum);
      for (std::size_t i = 0; i < 32; ++i) {
        const int low = nibbles[group / 2 * 32 + i] >> (group % 2 * 4) & 15;
        const int high = five ? fifth[i] >> group & 1 : 0;
        out[256 * block + 32 * group + i] = step * static_cast<float>(low + 16 * high) - minimum;
      }
    }
  }
}

// Q6_K, 256 elements: 128 bytes of low nibbles, 64 of high pairs of bits, 16 int8 scales, d. Each
// half of 128 has 64 bytes of nibbles (two groups of 32, then two more in the high halves) and 32
// of pairs, one for each group. w = d · scale of its 16 · (q − 32).
void dequantize_q6k(const std::uint8_t* p, std::span<float> out) {
  for (std::size_t block = 0; block < out.size() / 256; ++block, p += 210) {
    const float d = fp16_to_float(half_at(p + 208));
    for (std::size_t i = 0; i < 256; ++i) {
      const std::size_t half = i / 128;
      const std::size_t group = i % 128 / 32;
      const int low = p[64 * half + i % 64] >> (group / 2 * 4) & 15;
      const int high = p[128 + 32 * half + i % 32] >> (2 * group) & 3;
      const auto scale = static_cast<std::int8_t>(p[192 + i / 16]);
      out[256 * block + i] =
          d * static_cast<float>(scale) * static_cast<float>(low + 16 * high - 32);
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

KScale k_scale(const std::uint8_t* packed, std::size_t group) {
  if (group < 4) return {packed[group] & 63, packed[4 + group] & 63};
  const std::size_t i = group - 4;
  return {(packed[8 + i] & 15) | (packed[i] >> 6 << 4),
          (packed[8 + i] >> 4) | (packed[4 + i] >> 6 << 4)};
}

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
    case GgmlType::kQ5_0:
      dequantize_q5(false, p, out);
      return;
    case GgmlType::kQ5_1:
      dequantize_q5(true, p, out);
      return;
    case GgmlType::kQ8_0:
      dequantize_q8(p, out);
      return;
    case GgmlType::kQ4_K:
      dequantize_k45(false, p, out);
      return;
    case GgmlType::kQ5_K:
      dequantize_k45(true, p, out);
      return;
    case GgmlType::kQ6_K:
      dequantize_q6k(p, out);
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
