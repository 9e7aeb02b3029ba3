#include "codec/base/floats.h"

#include <gtest/gtest.h>

#include <bit>
#include <limits>
#include <random>

namespace kvfs {
namespace {

template <class To, class From>
To converted(DType from, From value, DType to, bool* fits = nullptr) {
  To out{};
  const bool fit =
      convert_floats(from, {reinterpret_cast<const std::uint8_t*>(&value), sizeof value}, to,
                     {reinterpret_cast<std::uint8_t*>(&out), sizeof out});
  if (fits != nullptr) *fits = fit;
  return out;
}

TEST(Floats, HalvesAreThoseOfTheCompiler) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    const auto wide = converted<float>(DType::kF16, half, DType::kF32);
    const auto known = static_cast<float>(std::bit_cast<_Float16>(half));
    ASSERT_TRUE(wide == known || (wide != wide && known != known)) << bits;
  }
  std::mt19937 random(1);
  for (int i = 0; i < 1'000'000; ++i) {
    std::uint32_t bits = static_cast<std::uint32_t>(random());
    if (i % 2 != 0) bits = (bits & 0x80ffffffU) | (0x33U + bits % 0x16U) << 24;  // about the border
    const auto value = std::bit_cast<float>(bits);
    if (value != value) continue;
    const auto known = std::bit_cast<std::uint16_t>(static_cast<_Float16>(value));
    bool fits = false;
    ASSERT_EQ(converted<std::uint16_t>(DType::kF32, value, DType::kF16, &fits), known) << bits;
    const bool finite = (bits & 0x7f800000U) != 0x7f800000U;
    ASSERT_EQ(fits, !finite || (known & 0x7c00U) != 0x7c00U) << bits;
  }
}

TEST(Floats, BrainFloatsRoundToNearestAndTiesToEven) {
  const auto bf16 = [](std::uint32_t bits) {
    return converted<std::uint16_t>(DType::kF32, std::bit_cast<float>(bits), DType::kBF16);
  };
  EXPECT_EQ(bf16(0x3f808000U), 0x3f80U);
  EXPECT_EQ(bf16(0x3f818000U), 0x3f82U);
  EXPECT_EQ(bf16(0x3f808001U), 0x3f81U);
  EXPECT_EQ(bf16(0x7f800001U), 0x7fc0U);
  EXPECT_EQ(converted<float>(DType::kBF16, std::uint16_t{0xc000}, DType::kF32), -2.0F);
  bool fits = true;
  converted<std::uint16_t>(DType::kF32, std::numeric_limits<float>::max(), DType::kBF16, &fits);
  EXPECT_FALSE(fits);
}

TEST(Floats, ALongArrayGoesElementByElement) {
  std::vector<float> in(5000);
  for (std::size_t i = 0; i < in.size(); ++i) in[i] = static_cast<float>(i % 256);
  Bytes half(in.size() * 2), brain(in.size() * 2);
  const ByteSpan wide(reinterpret_cast<const std::uint8_t*>(in.data()), in.size() * 4);
  ASSERT_TRUE(convert_floats(DType::kF32, wide, DType::kF16, half));
  ASSERT_TRUE(convert_floats(DType::kF16, half, DType::kBF16, brain));
  std::vector<float> out(in.size());
  ASSERT_TRUE(convert_floats(DType::kBF16, brain, DType::kF32,
                             {reinterpret_cast<std::uint8_t*>(out.data()), out.size() * 4}));
  EXPECT_EQ(out, in);
}

}  // namespace
}  // namespace kvfs
