#include "codec/base/floats.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <span>

namespace kvfs {
namespace {

constexpr std::size_t kStep = 1024;  // elements on the way, in the cache
constexpr std::uint32_t kInfinity = 0x7f800000U;

float from_bf16(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

std::uint16_t to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t rounded = (bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16;
  const std::uint32_t nan = (bits >> 16) | 0x40U;
  return static_cast<std::uint16_t>((bits & 0x7fffffffU) > kInfinity ? nan : rounded);
}

// Its exponent and fraction as those of a float, too small by 2^112; then infinities and NaN.
float from_f16(std::uint16_t bits) {
  const std::uint32_t magnitude = bits & 0x7fffU;
  const float scaled = std::bit_cast<float>(magnitude << 13) * 0x1p112F;
  const std::uint32_t special = magnitude >= 0x7c00U ? kInfinity : 0U;
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000U) << 16;
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(scaled) | special | sign);
}

// Adding a power of two, 2^13 times the value's (2^-1 for what is subnormal there), rounds to the
// bits that are kept.
std::uint16_t to_f16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t magnitude = bits & 0x7fffffffU;
  const std::uint32_t exponent = std::max(magnitude & kInfinity, 0x38800000U);
  const float anchor = std::bit_cast<float>(exponent + (13U << 23));
  const float sum = std::bit_cast<float>(std::min(magnitude, 0x477fffffU)) + anchor;
  const std::uint32_t kept =
      std::bit_cast<std::uint32_t>(sum) - std::bit_cast<std::uint32_t>(anchor);
  std::uint32_t out = (((exponent >> 23) - 113U) << 10) + kept;
  if (magnitude >= 0x477ff000U) out = 0x7c00U;
  if (magnitude > kInfinity) out = 0x7e00U;
  return static_cast<std::uint16_t>(out | ((bits >> 16) & 0x8000U));
}

template <class Element, class Narrow>
void widen(ByteSpan in, std::span<float> out, Narrow to_float) {
  std::array<Element, kStep> raw;
  std::memcpy(raw.data(), in.data(), in.size());
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = to_float(raw[i]);
}

template <class Element, class Narrow>
bool narrow(std::span<const float> in, MutableByteSpan out, std::uint32_t infinity,
            Narrow from_float) {
  std::array<Element, kStep> raw;
  bool fits = true;
  for (std::size_t i = 0; i < in.size(); ++i) {
    raw[i] = from_float(in[i]);
    const bool finite = (std::bit_cast<std::uint32_t>(in[i]) & kInfinity) != kInfinity;
    fits = fits & !(finite & ((raw[i] & infinity) == infinity));
  }
  std::memcpy(out.data(), raw.data(), out.size());
  return fits;
}

}  // namespace

bool convert_floats(DType from, ByteSpan in, DType to, MutableByteSpan out) {
  if (from == to) {
    std::ranges::copy(in, out.begin());
    return true;
  }
  const std::size_t wide = size_of(from), slim = size_of(to);
  bool fits = true;
  std::array<float, kStep> values;
  for (std::size_t done = 0; done * wide < in.size(); done += kStep) {
    const std::size_t n = std::min(kStep, in.size() / wide - done);
    const ByteSpan source = in.subspan(done * wide, n * wide);
    const MutableByteSpan target = out.subspan(done * slim, n * slim);
    const std::span<float> middle(values.data(), n);
    if (from == DType::kF32) std::memcpy(values.data(), source.data(), source.size());
    if (from == DType::kBF16) widen<std::uint16_t>(source, middle, from_bf16);
    if (from == DType::kF16) widen<std::uint16_t>(source, middle, from_f16);
    if (to == DType::kF32) std::memcpy(target.data(), values.data(), target.size());
    if (to == DType::kBF16) fits &= narrow<std::uint16_t>(middle, target, 0x7f80U, to_bf16);
    if (to == DType::kF16) fits &= narrow<std::uint16_t>(middle, target, 0x7c00U, to_f16);
  }
  return fits;
}

}  // namespace kvfs
