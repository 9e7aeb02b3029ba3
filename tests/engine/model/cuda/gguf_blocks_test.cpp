// What the device keeps of a GGUF's rows are the numbers that they stand for. Needs no GPU.
#include "engine/model/cuda/gguf_blocks.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "engine/model/dequantize.h"

namespace kvfs::model::cuda {
namespace {

using container::GgmlType;

constexpr std::size_t kInputs = 512;

// Random bytes, with `halves` fp16 scales at the beginning of each block.
Bytes random_row(GgmlType type, int halves, std::mt19937& random) {
  const std::size_t block = container::block_bytes(type);
  Bytes row(kInputs / container::block_elements(type) * block);
  for (auto& byte : row) byte = static_cast<std::uint8_t>(random());
  std::uniform_real_distribution<float> scale(-0.02F, 0.02F);
  for (std::size_t at = 0; at < row.size(); at += block) {
    for (int i = 0; i < halves; ++i) {
      const std::uint16_t bits = float_to_fp16(scale(random));
      std::memcpy(row.data() + at + static_cast<std::size_t>(2 * i), &bits, sizeof(bits));
    }
  }
  return row;
}

void expect_same_numbers(GgmlType type, int halves, WeightKind kind, float off) {
  std::mt19937 random(static_cast<unsigned>(type));
  const Bytes row = random_row(type, halves, random);
  std::vector<float> expected(kInputs);
  dequantize_row(type, row, expected);
  for (std::size_t i = 0; i < kInputs; ++i) {
    const WeightBlock block = weight_block(type, row, static_cast<int>(i / kPackedBlock), kind);
    const float scale = fp16_to_float(block.scale);
    const float least = kind == WeightKind::kInt4Min ? fp16_to_float(block.minimum) : 0.0F;
    const auto number = static_cast<float>(block.numbers[i % kPackedBlock]);
    const float room = off * (std::abs(scale * number) + std::abs(least));
    ASSERT_NEAR(number * scale + least, expected[i], room + 1e-7F)
        << container::name_of(type) << ", input " << i;
  }
}

TEST(GgufBlocks, AreTheNumbersThatARowStandsFor) {
  expect_same_numbers(GgmlType::kQ4_0, 1, WeightKind::kInt4, 0.0F);
  expect_same_numbers(GgmlType::kQ4_0, 1, WeightKind::kInt4Min, 0.0F);
  expect_same_numbers(GgmlType::kQ4_1, 2, WeightKind::kInt4Min, 0.0F);
  expect_same_numbers(GgmlType::kQ8_0, 1, WeightKind::kInt8, 0.0F);
  expect_same_numbers(GgmlType::kQ4_K, 2, WeightKind::kInt4Min, 1.0F / 1024.0F);
}

TEST(GgufBlocks, ChooseWhatHoldsEverySlice) {
  const auto linear = [](const std::vector<Tensor>& tensors) {
    Linear out{.inputs = 32, .weight = {}, .bias = {}};
    for (const Tensor& tensor : tensors) out.weight.push_back({.tensor = &tensor, .rows = 16});
    return out;
  };
  const auto tensor = [](GgmlType type) {
    Tensor out;
    out.type = type;
    return out;
  };
  const std::vector<Tensor> mixed{tensor(GgmlType::kQ4_0), tensor(GgmlType::kQ4_K)};
  EXPECT_EQ(packed_kind(linear(mixed)), WeightKind::kInt4Min);
  const std::vector<Tensor> plain{tensor(GgmlType::kQ4_0), tensor(GgmlType::kQ4_0)};
  EXPECT_EQ(packed_kind(linear(plain)), WeightKind::kInt4);
  const std::vector<Tensor> wide{tensor(GgmlType::kQ8_0), tensor(GgmlType::kQ4_0)};
  EXPECT_FALSE(packed_kind(linear(wide)));
  const std::vector<Tensor> other{tensor(GgmlType::kQ4_K), tensor(GgmlType::kQ6_K)};
  EXPECT_FALSE(packed_kind(linear(other)));
}

}  // namespace
}  // namespace kvfs::model::cuda
