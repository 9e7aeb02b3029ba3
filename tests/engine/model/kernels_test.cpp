// All builds of every kernel that this CPU runs give the same bits, and those are near what doubles
// give.
#include "engine/model/cpu/kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "engine/model/dequantize.h"

namespace kvfs::model::cpu {
namespace {

using Floats = std::vector<float>;

class EveryBuild : public ::testing::TestWithParam<const Kernels*> {
 protected:
  const Kernels& fast() { return *GetParam(); }
  const Kernels& portable() { return portable_kernels(); }

  Floats random(std::size_t n, float spread = 1.0F) {
    std::normal_distribution<float> normal(0.0F, spread);
    Floats x(n);
    for (float& v : x) v = normal(generator_);
    return x;
  }
  std::mt19937 generator_{7};
};

// Bits, not values: −0 is not 0 and NaN is NaN.
void expect_same_bits(const Floats& a, const Floats& b) {
  ASSERT_EQ(a.size(), b.size());
  EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)), 0);
}

struct Quantized {
  std::vector<std::int8_t> values;
  Floats scales;
  Floats sums;
  std::vector<Outlier> found;     // [rows, columns / 32]
  std::vector<Outlier> outliers;  // listed by row block
  std::vector<std::int32_t> starts;
  int columns;
  QuantizedRows view(int rows) const {
    return {values.data(), scales.data(), sums.data(), outliers.data(),
            starts.data(), rows,          columns};
  }
};
Quantized quantized(const Kernels& kernels, const Floats& x, int columns) {
  const int blocks = columns / 32;
  const int rows = static_cast<int>(x.size()) / columns;
  const auto all = static_cast<std::size_t>(rows * blocks);
  Quantized q{std::vector<std::int8_t>(x.size()),
              Floats(all),
              Floats(all),
              std::vector<Outlier>(all),
              {},
              {},
              columns};
  for (int r = 0; r < rows; ++r) {
    const int block = r * blocks;
    kernels.quantize(x.data() + r * columns, columns, q.values.data() + r * columns,
                     q.scales.data() + block, q.sums.data() + block, q.found.data() + block);
  }
  q.starts = {0};
  for (int first = 0; first < rows; first += kRowBlock) {
    for (int b = 0; b < blocks; ++b) {
      for (int r = first; r < std::min(rows, first + kRowBlock); ++r) {
        Outlier found = q.found[static_cast<std::size_t>(r * blocks + b)];
        found.row = r;
        if (found.column >= 0) q.outliers.push_back(found);
      }
    }
    q.starts.push_back(static_cast<std::int32_t>(q.outliers.size()));
  }
  return q;
}

TEST_P(EveryBuild, QuantizeAlikeWithinHalfAStepAndKeepOutliers) {
  Floats x = random(640);
  for (std::size_t i = 0; i < 32; ++i) x[i] = 0.0F;
  for (std::size_t i = 32; i < 64; ++i) x[i] = static_cast<float>(i % 2) - 0.5F;  // halves: ties
  x[70] = 1e30F;
  x[639] = -100.0F;
  const Quantized a = quantized(fast(), x, 640);
  const Quantized b = quantized(portable(), x, 640);
  EXPECT_EQ(a.values, b.values);
  expect_same_bits(a.scales, b.scales);
  expect_same_bits(a.sums, b.sums);
  ASSERT_EQ(a.outliers.size(), b.outliers.size());
  ASSERT_GE(a.outliers.size(), 2U);
  Floats back(640);
  for (std::size_t i = 0; i < x.size(); ++i)
    back[i] = a.scales[i / 32] * static_cast<float>(a.values[i]);
  for (std::size_t i = 0; i < a.outliers.size(); ++i) {
    EXPECT_EQ(a.outliers[i].column, b.outliers[i].column);
    EXPECT_EQ(a.outliers[i].value, b.outliers[i].value);
    back[static_cast<std::size_t>(a.outliers[i].column)] += a.outliers[i].value;
  }
  EXPECT_EQ(back[70], 1e30F);
  EXPECT_EQ(back[639], -100.0F);
  for (std::size_t i = 0; i < x.size(); ++i)
    EXPECT_LE(std::fabs(x[i] - back[i]), 0.5001F * a.scales[i / 32]) << i;
}

TEST_P(EveryBuild, NormaliseGateAndTurnAlike) {
  const Floats x = random(576, 3.0F);
  const Floats weight = random(576);
  Floats a(576);
  Floats b(576);
  fast().rms_norm(x.data(), weight.data(), 1e-5F, 576, a.data());
  portable().rms_norm(x.data(), weight.data(), 1e-5F, 576, b.data());
  expect_same_bits(a, b);

  const Floats gate = random(576, 40.0F);  // far into both ends of the sigmoid
  fast().activate(Activation::kSilu, gate.data(), x.data(), 576, a.data());
  portable().activate(Activation::kSilu, gate.data(), x.data(), 576, b.data());
  expect_same_bits(a, b);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double expected = gate[i] / (1.0 + std::exp(-static_cast<double>(gate[i]))) * x[i];
    EXPECT_NEAR(a[i], expected, 1e-5 * std::fabs(expected) + 1e-30);
  }

  for (const bool biased : {false, true}) {
    const float* bias = biased ? gate.data() : nullptr;
    fast().layer_norm(x.data(), weight.data(), bias, 1e-5F, 576, a.data());
    portable().layer_norm(x.data(), weight.data(), bias, 1e-5F, 576, b.data());
    expect_same_bits(a, b);
    double mean = 0;
    double variance = 0;
    for (const float v : x) mean += v / 576.0;
    for (const float v : x) variance += (v - mean) * (v - mean) / 576.0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double expected = (x[i] - mean) / std::sqrt(variance + 1e-5) * weight[i];
      EXPECT_NEAR(a[i], expected + (biased ? gate[i] : 0.0F), 2e-5);
    }
  }

  // Whole lanes, and what is left over.
  a = x;
  b = x;
  fast().rotate(a.data(), weight.data(), gate.data(), 12);
  portable().rotate(b.data(), weight.data(), gate.data(), 12);
  expect_same_bits(a, b);
  for (std::size_t i = 0; i < 12; ++i)
    EXPECT_NEAR(a[i], x[i] * weight[i] - x[12 + i] * gate[i], 1e-3);
  EXPECT_EQ(a[24], x[24]);

  a = x;
  b = x;
  fast().rotate(a.data(), weight.data(), gate.data(), 32);
  portable().rotate(b.data(), weight.data(), gate.data(), 32);
  expect_same_bits(a, b);
}

// Random bytes as weights, with tame fp16 scales.
std::vector<std::uint8_t> random_packed(Packing packing, int inputs, int groups,
                                        std::mt19937& generator) {
  const std::size_t body = packing == Packing::kQ8_0 ? 256 : 128;
  const std::size_t block = packing == Packing::kQ4_1 ? 160 : packing == Packing::kQ4_0 ? 144 : 272;
  std::vector<std::uint8_t> bytes(block * static_cast<std::size_t>(inputs / 32 * groups));
  for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(generator());
  for (std::size_t at = 0; at < bytes.size(); at += block) {
    for (std::size_t i = body + 1; i < block; i += 2)
      bytes[at + i] = static_cast<std::uint8_t>(0x20 + (bytes[at + i] & 0x83));
  }
  return bytes;
}

TEST_P(EveryBuild, MultiplyQuantizedWeightsAlikeForAnyNumberOfRows) {
  constexpr int kInputs = 17 * 32;  // more than is unpacked at once
  constexpr int kOutputs = 56;
  // Alone, in tiles of 8, 4, 2 and 1, and unpacked: more rows than one block of them.
  constexpr int kRows = kRowBlock + 23;
  for (const Packing packing : {Packing::kQ4_1, Packing::kQ4_0, Packing::kQ8_0}) {
    alignas(64) const std::vector<std::uint8_t> data =
        random_packed(packing, kInputs, kOutputs / 8, generator_);
    const MatrixView w{packing, kInputs, kOutputs, data.data()};
    Floats values = random(kRows * kInputs);
    values[5] = 50.0F;  // outliers: one row has two, most have none
    values[40] = -70.0F;
    values[2 * kInputs + 5] = 40.0F;  // the same column as another row's
    values[2 * kInputs + 94] = 33.0F;
    const Quantized x = quantized(fast(), values, kInputs);
    ASSERT_GE(x.outliers.size(), 3U);
    Floats a(kRows * kOutputs, 1.0F);
    Floats b(kRows * kOutputs, 1.0F);
    fast().multiply_quantized(x.view(kRows), w, 0, kOutputs / 8, {a.data(), kOutputs, true});
    portable().multiply_quantized(x.view(kRows), w, 0, kOutputs / 8, {b.data(), kOutputs, true});
    expect_same_bits(a, b);
    for (int row = 0; row < kRows; ++row) {  // alone, and in two pieces
      Floats one(kOutputs, 1.0F);
      const Quantized alone = quantized(
          fast(), Floats(values.begin() + row * kInputs, values.begin() + (row + 1) * kInputs),
          kInputs);
      fast().multiply_quantized(alone.view(1), w, 0, 2, {one.data(), kOutputs, true});
      fast().multiply_quantized(alone.view(1), w, 2, kOutputs / 8, {one.data(), kOutputs, true});
      expect_same_bits(one, Floats(a.begin() + row * kOutputs, a.begin() + (row + 1) * kOutputs));
    }
  }
}

TEST_P(EveryBuild, MultiplyPlainWeightsAlikeForAnyNumberOfRows) {
  constexpr int kInputs = 160;  // more than one depth of a panel
  constexpr int kOutputs = 50;  // the last panel is not full
  for (const Packing packing : {Packing::kF32, Packing::kF16, Packing::kBF16}) {
    std::vector<std::uint8_t> data(static_cast<std::size_t>(kInputs) * 64 * 4);
    const Floats values = random(static_cast<std::size_t>(kInputs) * 64);
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (packing == Packing::kF32) std::memcpy(&data[4 * i], &values[i], 4);
      const std::uint16_t half = packing == Packing::kBF16
                                     ? float_to_bf16(values[i])
                                     : static_cast<std::uint16_t>(0x2000 + i % 0x1800);
      if (packing != Packing::kF32) std::memcpy(&data[2 * i], &half, 2);
    }
    const MatrixView w{packing, kInputs, kOutputs, data.data()};
    const Floats x = random(5 * kInputs);
    Floats a(5 * kOutputs);
    Floats b(5 * kOutputs);
    fast().multiply_plain(x.data(), 5, w, 0, 2, {a.data(), kOutputs, false});
    portable().multiply_plain(x.data(), 5, w, 0, 2, {b.data(), kOutputs, false});
    expect_same_bits(a, b);
    for (int row = 0; row < 5; ++row) {
      Floats one(kOutputs);
      fast().multiply_plain(x.data() + row * kInputs, 1, w, 0, 2, {one.data(), kOutputs, false});
      expect_same_bits(one, Floats(a.begin() + row * kOutputs, a.begin() + (row + 1) * kOutputs));
    }
  }
}

TEST_P(EveryBuild, ActivationsAndCapsAlike) {
  const Floats x = random(576, 4.0F);
  const Floats factor = random(576);
  Floats a(576);
  Floats b(576);
  const auto near = [&](auto function, const float* factors) {
    expect_same_bits(a, b);
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double expected = function(static_cast<double>(x[i])) *
                              static_cast<double>(factors != nullptr ? factors[i] : 1.0F);
      EXPECT_NEAR(a[i], expected, 2e-6 * (1.0 + std::fabs(expected)));
    }
  };
  const auto gelu = [](double v) { return v / 2 * (1 + std::erf(v / std::sqrt(2.0))); };
  const auto gelu_tanh = [](double v) {
    return v / 2 * (1 + std::tanh(std::sqrt(2.0 / 3.14159265358979) * (v + 0.044715 * v * v * v)));
  };
  for (const float* factors : {static_cast<const float*>(nullptr), factor.data()}) {
    fast().activate(Activation::kGelu, x.data(), factors, 576, a.data());
    portable().activate(Activation::kGelu, x.data(), factors, 576, b.data());
    near(gelu, factors);
    fast().activate(Activation::kGeluTanh, x.data(), factors, 576, a.data());
    portable().activate(Activation::kGeluTanh, x.data(), factors, 576, b.data());
    near(gelu_tanh, factors);
  }
  a = x;
  b = x;
  fast().soft_cap(a.data(), 5.0F, 576);
  portable().soft_cap(b.data(), 5.0F, 576);
  near([](double v) { return 5 * std::tanh(v / 5); }, nullptr);
  a = x;
  b = x;
  fast().add_scaled(a.data(), factor.data(), 0.3F, 576);
  portable().add_scaled(b.data(), factor.data(), 0.3F, 576);
  expect_same_bits(a, b);
}

struct Attended {
  Floats maxima;
  Floats sums;
  Floats outputs;
};
Attended attend(const Kernels& kernels, const Floats& queries,
                const std::vector<std::uint16_t>& keys, const std::vector<std::uint16_t>& values,
                int heads, int width, int positions, int first_valid,
                int first_seen = -kAttendPositions, float soft_cap = 0.0F) {
  const auto rows = static_cast<std::size_t>(positions * heads);
  Attended out{Floats(rows), Floats(rows), Floats(rows * static_cast<std::size_t>(width))};
  Floats scores(rows * kAttendScores);
  kernels.attend_bf16({.queries = queries.data(),
                       .query_stride = static_cast<std::size_t>(heads * width),
                       .positions = positions,
                       .heads = heads,
                       .width = width,
                       .keys = keys.data(),
                       .values = values.data(),
                       .first_valid = first_valid,
                       .first_seen = first_seen,
                       .soft_cap = soft_cap,
                       .scores = scores.data(),
                       .maxima = out.maxima.data(),
                       .sums = out.sums.data(),
                       .outputs = out.outputs.data()});
  return out;
}

TEST_P(EveryBuild, AttendAlikeForAnyTileOfPositions) {
  constexpr int kWidth = 64;
  for (const int heads : {1, 3, 4}) {
    std::vector<std::uint16_t> keys(kPage * kWidth);
    std::vector<std::uint16_t> values(kPage * kWidth);
    for (std::uint16_t& bits : keys) bits = float_to_bf16(random(1)[0]);
    for (std::uint16_t& bits : values) bits = float_to_bf16(random(1)[0]);
    const Floats queries = random(static_cast<std::size_t>(8 * heads * kWidth), 0.3F);
    const Attended a = attend(fast(), queries, keys, values, heads, kWidth, 8, 61);
    const Attended b = attend(portable(), queries, keys, values, heads, kWidth, 8, 61);
    expect_same_bits(a.maxima, b.maxima);
    expect_same_bits(a.sums, b.sums);
    expect_same_bits(a.outputs, b.outputs);
    for (int p = 0; p < 8; ++p) {
      const Floats query(queries.begin() + p * heads * kWidth,
                         queries.begin() + (p + 1) * heads * kWidth);
      const Attended one = attend(fast(), query, keys, values, heads, kWidth, 1, 61 + p);
      expect_same_bits(one.outputs, Floats(a.outputs.begin() + p * heads * kWidth,
                                           a.outputs.begin() + (p + 1) * heads * kWidth));
    }
  }
}

TEST_P(EveryBuild, AWindowAndACapGiveEachPositionItsOwnBits) {
  constexpr int kWidth = 32;
  std::vector<std::uint16_t> keys(kPage * kWidth);
  std::vector<std::uint16_t> values(kPage * kWidth);
  for (std::uint16_t& bits : keys) bits = float_to_bf16(random(1)[0]);
  for (std::uint16_t& bits : values) bits = float_to_bf16(random(1)[0]);
  const Floats queries = random(8 * 2 * kWidth, 0.3F);
  // The last positions see nothing of a page that lies before their window.
  for (const auto& [valid, seen] : {std::pair{61, 13}, std::pair{200, 8}, std::pair{256, 251}}) {
    const Attended a = attend(fast(), queries, keys, values, 2, kWidth, 8, valid, seen, 1.5F);
    const Attended b = attend(portable(), queries, keys, values, 2, kWidth, 8, valid, seen, 1.5F);
    expect_same_bits(a.maxima, b.maxima);
    expect_same_bits(a.sums, b.sums);
    expect_same_bits(a.outputs, b.outputs);
    for (int p = 0; p < 8; ++p) {
      const Floats query(queries.begin() + p * 2 * kWidth, queries.begin() + (p + 1) * 2 * kWidth);
      const Attended one =
          attend(fast(), query, keys, values, 2, kWidth, 1, valid + p, seen + p, 1.5F);
      expect_same_bits(one.outputs, Floats(a.outputs.begin() + p * 2 * kWidth,
                                           a.outputs.begin() + (p + 1) * 2 * kWidth));
      if (seen + p >= kPage) {
        EXPECT_EQ(one.sums[0], 0.0F);
        EXPECT_EQ(one.maxima[0], kNothingSeen);
        EXPECT_EQ(one.outputs, Floats(2 * kWidth, 0.0F));
      } else {
        EXPECT_GT(one.sums[0], 0.0F);
        EXPECT_LE(one.maxima[0], 1.5F);
      }
    }
  }
}

TEST_P(EveryBuild, AttendIsSoftmaxOfScores) {
  constexpr int kWidth = 32;
  constexpr int kValid = 100;
  Floats keys = random(kPage * kWidth);
  Floats values = random(kPage * kWidth);
  const Floats query = random(kWidth);
  // fp32 pages keep columns in order: key j, dimension i of tile j / 32; value j, column i.
  std::vector<double> weights(kValid);
  double total = 0;
  for (int j = 0; j < kValid; ++j) {
    double score = 0;
    for (int i = 0; i < kWidth; ++i) {
      score += static_cast<double>(query[static_cast<std::size_t>(i)]) *
               keys[static_cast<std::size_t>((j / 32 * kWidth + i) * 32 + j % 32)];
    }
    weights[static_cast<std::size_t>(j)] = std::exp(score);
    total += std::exp(score);
  }
  Floats scores(kAttendScores);
  float maximum = 0;
  float sum = 0;
  Floats out(kWidth);
  fast().attend_f32({.queries = query.data(),
                     .query_stride = kWidth,
                     .positions = 1,
                     .heads = 1,
                     .width = kWidth,
                     .keys = keys.data(),
                     .values = values.data(),
                     .first_valid = kValid,
                     .first_seen = -kAttendPositions,
                     .soft_cap = 0.0F,
                     .scores = scores.data(),
                     .maxima = &maximum,
                     .sums = &sum,
                     .outputs = out.data()});
  for (int i = 0; i < kWidth; ++i) {
    double expected = 0;
    for (int j = 0; j < kValid; ++j)
      expected += weights[static_cast<std::size_t>(j)] / total *
                  values[static_cast<std::size_t>(j * 32 + i)];
    EXPECT_NEAR(out[static_cast<std::size_t>(i)] / sum, expected, 1e-5);
  }
}

INSTANTIATE_TEST_SUITE_P(OfThisCpu, EveryBuild, ::testing::ValuesIn(usable_kernels()),
                         [](const auto& test) { return std::string(test.param->name); });

}  // namespace
}  // namespace kvfs::model::cpu
