// Elements as attention makes them: Gaussian, a scale of its own for each channel. The same
// everywhere.
#pragma once

#include <cmath>
#include <random>
#include <vector>

#include "codec/chunk/codec.h"

namespace kvfs::chunk {

// The bits of `value` as an element of dtype, rounded towards zero; floats only.
inline void append_element(DType dtype, float value, Bytes& out) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  if (dtype == DType::kBF16) bits >>= 16;
  if (dtype == DType::kF16) {
    const auto half = static_cast<_Float16>(value);
    std::memcpy(&bits, &half, sizeof half);
  }
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(&bits);
  out.insert(out.end(), bytes, bytes + size_of(dtype));
}

inline Bytes gaussian(const ShapeClass& shape) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  Bytes out;
  std::vector<float> scales(shape.width);
  for (std::size_t head = 0; head < shape.heads; ++head) {
    for (float& scale : scales) scale = std::exp(normal(random));
    for (std::uint32_t p = 0; p < shape.positions; ++p) {
      for (const float scale : scales) append_element(shape.dtype, scale * normal(random), out);
    }
  }
  return out;
}

// Every bit as likely as not: NaNs, infinities and subnormals among them.
inline Bytes noise(const ShapeClass& shape) {
  std::mt19937 random(11);
  Bytes out(shape.byte_size());
  for (std::uint8_t& byte : out) byte = static_cast<std::uint8_t>(random());
  return out;
}

}  // namespace kvfs::chunk
