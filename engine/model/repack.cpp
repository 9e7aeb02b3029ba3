#include "engine/model/repack.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "engine/model/dequantize.h"

namespace kvfs::model {
namespace {

using container::GgmlType;

void put_half(std::uint8_t* to, std::uint16_t bits) { std::memcpy(to, &bits, sizeof bits); }

void q5_0_to_q8_0(const std::uint8_t* from, std::size_t blocks, std::uint8_t* to) {
  for (std::size_t b = 0; b < blocks; ++b, from += 22, to += 34) {
    std::memcpy(to, from, 2);
    for (std::size_t i = 0; i < 32; ++i) {
      const int low = i < 16 ? from[6 + i] & 15 : from[6 + i - 16] >> 4;
      const int high = from[2 + i / 8] >> (i % 8) & 1;
      to[2 + i] = static_cast<std::uint8_t>(low + 16 * high - 16);
    }
  }
}

void q4_k_to_q4_1(const std::uint8_t* from, std::size_t blocks, std::uint8_t* to) {
  std::uint16_t d_bits;
  std::uint16_t dmin_bits;
  for (std::size_t b = 0; b < blocks; ++b, from += 144) {
    std::memcpy(&d_bits, from, 2);
    std::memcpy(&dmin_bits, from + 2, 2);
    for (std::size_t group = 0; group < 8; ++group, to += 20) {
      const KScale scale = k_scale(from + 4, group);
      put_half(to, float_to_fp16(fp16_to_float(d_bits) * static_cast<float>(scale.scale)));
      put_half(to + 2,
               float_to_fp16(-fp16_to_float(dmin_bits) * static_cast<float>(scale.minimum)));
      const std::uint8_t* nibbles = from + 16 + group / 2 * 32;
      const auto value = [&](std::size_t i) { return nibbles[i] >> (group % 2 * 4) & 15; };
      for (std::size_t i = 0; i < 16; ++i)
        to[4 + i] = static_cast<std::uint8_t>(value(i) | value(16 + i) << 4);
    }
  }
}

void floats_to_q8_0(const std::vector<float>& values, std::uint8_t* to) {
  for (std::size_t at = 0; at < values.size(); at += 32, to += 34) {
    float peak = 0.0F;
    for (std::size_t i = 0; i < 32; ++i) peak = std::max(peak, std::fabs(values[at + i]));
    const std::uint16_t bits = float_to_fp16(peak / 127.0F);
    const float step = fp16_to_float(bits);  // as the kernels will see it
    put_half(to, bits);
    for (std::size_t i = 0; i < 32; ++i) {
      const float steps = step > 0.0F ? std::nearbyint(values[at + i] / step) : 0.0F;
      to[2 + i] = static_cast<std::uint8_t>(static_cast<int>(std::clamp(steps, -127.0F, 127.0F)));
    }
  }
}

}  // namespace

GgmlType repacked_type(GgmlType type) {
  switch (type) {
    case GgmlType::kQ4_K:
      return GgmlType::kQ4_1;
    case GgmlType::kQ5_0:
    case GgmlType::kQ5_1:
    case GgmlType::kQ5_K:
    case GgmlType::kQ6_K:
      return GgmlType::kQ8_0;
    default:
      return type;
  }
}

void repack_row(GgmlType type, ByteSpan source, std::size_t columns, Bytes& out) {
  const GgmlType to = repacked_type(type);
  out.resize(columns / block_elements(to) * block_bytes(to));
  if (type == GgmlType::kQ5_0) return q5_0_to_q8_0(source.data(), columns / 32, out.data());
  if (type == GgmlType::kQ4_K) return q4_k_to_q4_1(source.data(), columns / 256, out.data());
  std::vector<float> values(columns);
  dequantize_row(type, source, values);
  floats_to_q8_0(values, out.data());
}

}  // namespace kvfs::model
