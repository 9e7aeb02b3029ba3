// Numbers of every quantized kind, against the gguf package's (goldens/make_block_goldens.py), and
// what repacking leaves of them.
#include "engine/model/dequantize.h"

#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <charconv>
#include <cmath>
#include <fstream>
#include <sstream>

#include "engine/model/repack.h"

namespace kvfs::model {
namespace {

using container::GgmlType;

struct Blocks {
  Bytes bytes;
  std::vector<float> values;
};

Blocks golden_of(GgmlType type) {
  std::ifstream file(KVFS_REPO_DIR "/tests/engine/model/goldens/blocks.json");
  std::stringstream text;
  text << file.rdbuf();
  const boost::json::value json = boost::json::parse(text.str()).at(std::string(name_of(type)));
  Blocks blocks;
  const std::string hex(json.at("bytes").as_string());
  for (std::size_t i = 0; i < hex.size(); i += 2) {
    std::uint8_t byte = 0;
    std::from_chars(hex.data() + i, hex.data() + i + 2, byte, 16);
    blocks.bytes.push_back(byte);
  }
  for (const auto& value : json.at("values").as_array())
    blocks.values.push_back(value.to_number<float>());
  return blocks;
}

class EveryQuantizedKind : public ::testing::TestWithParam<GgmlType> {};
INSTANTIATE_TEST_SUITE_P(Blocks, EveryQuantizedKind,
                         ::testing::Values(GgmlType::kQ4_0, GgmlType::kQ4_1, GgmlType::kQ5_0,
                                           GgmlType::kQ5_1, GgmlType::kQ8_0, GgmlType::kQ4_K,
                                           GgmlType::kQ5_K, GgmlType::kQ6_K),
                         [](const auto& kind) { return std::string(name_of(kind.param)); });

TEST_P(EveryQuantizedKind, HasTheReferencesNumbers) {
  const Blocks golden = golden_of(GetParam());
  ASSERT_EQ(golden.bytes.size(), 2 * block_bytes(GetParam()));
  ASSERT_TRUE(is_supported(GetParam()));
  std::vector<float> values(golden.values.size());
  dequantize_row(GetParam(), golden.bytes, values);
  for (std::size_t i = 0; i < values.size(); ++i)
    EXPECT_NEAR(values[i], golden.values[i], 1e-6F * (1.0F + std::fabs(golden.values[i]))) << i;
}

class EveryRepackedKind : public ::testing::TestWithParam<GgmlType> {};
INSTANTIATE_TEST_SUITE_P(Blocks, EveryRepackedKind,
                         ::testing::Values(GgmlType::kQ5_0, GgmlType::kQ5_1, GgmlType::kQ4_K,
                                           GgmlType::kQ5_K, GgmlType::kQ6_K),
                         [](const auto& kind) { return std::string(name_of(kind.param)); });

TEST_P(EveryRepackedKind, KeepsItsNumbers) {
  const Blocks golden = golden_of(GetParam());
  const GgmlType kept = repacked_type(GetParam());
  Bytes repacked;
  ASSERT_NE(kept, GetParam());
  ASSERT_EQ(repacked_type(kept), kept);
  repack_row(GetParam(), golden.bytes, golden.values.size(), repacked);
  std::vector<float> values(golden.values.size());
  dequantize_row(kept, repacked, values);
  for (std::size_t block = 0; block < values.size(); block += 32) {
    float peak = 0.0F;
    for (std::size_t i = 0; i < 32; ++i) peak = std::max(peak, std::fabs(golden.values[block + i]));
    const float allowed = GetParam() == GgmlType::kQ5_0 ? 1e-6F : 0.0045F;
    for (std::size_t i = block; i < block + 32; ++i)
      EXPECT_NEAR(values[i], golden.values[i], allowed * peak) << i;
  }
}

TEST(HalfFloats, EveryFiniteOneSurvivesThereAndBack) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    if ((half & 0x7c00U) == 0x7c00U) continue;
    EXPECT_EQ(float_to_fp16(fp16_to_float(half)), half);
  }
}

TEST(HalfFloats, RoundToTheNearestTiesToEven) {
  EXPECT_EQ(float_to_fp16(1.0F + 0x1p-11F), 0x3c00);      // a tie, down to even
  EXPECT_EQ(float_to_fp16(1.0F + 3 * 0x1p-11F), 0x3c02);  // a tie, up to even
  EXPECT_EQ(float_to_fp16(1.0F + 0x1.1p-11F), 0x3c01);
  EXPECT_EQ(float_to_fp16(2.0F - 0x1p-12F), 0x4000);  // into the next exponent
  EXPECT_EQ(float_to_fp16(-0x1p-24F), 0x8001);
  EXPECT_EQ(float_to_fp16(0x1p-26F), 0);
  EXPECT_EQ(float_to_fp16(65519.0F), 0x7bff);
  EXPECT_EQ(float_to_fp16(1e6F), 0x7c00);
  EXPECT_TRUE(std::isnan(fp16_to_float(float_to_fp16(NAN))));
}

}  // namespace
}  // namespace kvfs::model
