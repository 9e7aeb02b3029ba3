// Weights of 4 and 8 bits against plain double-precision code, and a row's bits against its
// company.
#include "engine/model/cuda/decode_packed.h"
#include "engine/model/dequantize.h"
#include "tests/engine/model/cuda/kernel_fixture.h"

namespace kvfs::model::cuda {
namespace {

using bf16 = __nv_bfloat16;

constexpr float kEpsilon = 1e-5F;
constexpr WeightKind kKinds[] = {WeightKind::kInt4, WeightKind::kInt4Min, WeightKind::kInt8};

// Random weights, on the device and as numbers [outputs][inputs]; every code occurs.
struct Packed {
  Packed(WeightKind kind, int outputs, int inputs, bool paired, std::mt19937& random) {
    std::vector<std::uint8_t> bytes(packed_bytes(kind, outputs, inputs));
    const int least_code = kind == WeightKind::kInt8 ? -128 : kind == WeightKind::kInt4 ? -8 : 0;
    std::uniform_int_distribution<int> code(least_code,
                                            least_code + (kind == WeightKind::kInt8 ? 255 : 15));
    std::uniform_real_distribution<float> step(0.002F, 0.02F);
    for (int n = 0; n < outputs; ++n) {
      const PackedRow at = packed_row(n, outputs, paired);
      for (int k = 0; k < inputs; k += kPackedBlock) {
        WeightBlock block{{}, float_to_fp16(step(random)), float_to_fp16(-8 * step(random))};
        const float scale = fp16_to_float(block.scale);
        const float least = kind == WeightKind::kInt4Min ? fp16_to_float(block.minimum) : 0.0F;
        for (std::int8_t& number : block.numbers) {
          number = static_cast<std::int8_t>(code(random));
          numbers.push_back(scale * static_cast<float>(number) + least);
        }
        pack_block(
            kind, block, at.row, k / kPackedBlock,
            bytes.data() + static_cast<std::size_t>(at.tile) * packed_tile_bytes(kind, inputs));
      }
    }
    data = std::make_unique<DeviceArray<std::uint8_t>>(bytes);
    matrix = {data->get(), outputs, inputs, kind, paired};
  }
  std::vector<float> numbers;
  std::unique_ptr<DeviceArray<std::uint8_t>> data;
  Matrix matrix{};
};

struct Size {
  int outputs;
  int inputs;
};
// Fewer chunks than warps, a last chunk that is not full, more tiles than blocks, long rows.
constexpr Size kSizes[] = {{48, 64},     {960, 576},   {96, 1568},
                           {16384, 256}, {4096, 1536}, {32, 14336}};

class CudaPacked : public CudaKernels<bf16> {
 protected:
  void SetUp() override {
    CudaKernels<bf16>::SetUp();
    if (IsSkipped()) return;
    pieces_ = std::make_unique<DeviceArray<std::uint8_t>>(fixed_piece_bytes(14336));
    scales_ = std::make_unique<DeviceArray<float>>(fixed_scale_floats(14336));
  }
  FixedRows room() const { return {pieces_->get(), scales_->get()}; }
  std::unique_ptr<DeviceArray<std::uint8_t>> pieces_;
  std::unique_ptr<DeviceArray<float>> scales_;

  // Rows in front of a norm: x [kMaxBatch][inputs], the sums of squares that its scale comes from.
  struct Rows {
    std::vector<bf16> x;
    std::vector<float> squares;
    std::vector<double> scales;
  };
  Rows rows_of(int inputs) {
    const int tiles = inputs / kTileOutputs;
    Rows out{normal(static_cast<std::size_t>(kMaxBatch * inputs)), {}, {}};
    for (int r = 0; r < kMaxBatch; ++r) {
      double sum = 0.0;
      for (int i = 0; i < tiles; ++i) {
        out.squares.push_back(static_cast<float>(between(1, 50)));
        sum += static_cast<double>(out.squares.back());
      }
      out.scales.push_back(1.0 / std::sqrt(sum / inputs + kEpsilon));
    }
    return out;
  }
  static std::vector<double> product(const Packed& w, const Rows& in) {
    const int inputs = w.matrix.inputs;
    std::vector<double> out;
    for (int r = 0; r < kMaxBatch; ++r) {
      for (int n = 0; n < w.matrix.outputs; ++n) {
        double sum = 0.0;
        for (int k = 0; k < inputs; ++k) {
          sum += static_cast<double>(w.numbers[static_cast<std::size_t>(n * inputs + k)]) *
                 number(in.x[static_cast<std::size_t>(r * inputs + k)]);
        }
        out.push_back(sum);
      }
    }
    return out;
  }
  // run(first, rows) gives what the same rows of `together` are.
  template <class E, class Run>
  static void expect_company_free(const std::vector<E>& together, int width, const Run& run) {
    for (const int rows : {1, 3, 8, 11}) {
      for (const int first : {0, 5}) {
        const std::vector<E> mine(together.begin() + first * width,
                                  together.begin() + (first + rows) * width);
        ASSERT_TRUE(same_bits(run(first, rows), mine)) << rows << " rows from " << first;
      }
    }
  }
};

TEST_F(CudaPacked, AreTheNumbersTheyStandFor) {
  for (const WeightKind kind : kKinds) {
    for (const bool paired : {false, true}) {
      const Packed w(kind, 96, 1568, paired, random_);
      const DeviceArray<bf16> out(w.numbers.size());
      must(unpack(w.matrix, out.get(), nullptr));
      const auto got = out.host();
      for (std::size_t i = 0; i < got.size(); ++i) {
        const float least = std::abs(w.numbers[i]) / 256.0F + 1e-6F;
        ASSERT_NEAR(number(got[i]), w.numbers[i], least) << i;
      }
    }
  }
}

TEST_F(CudaPacked, MultiplyAsTheNumbersTheyStandFor) {
  for (const WeightKind kind : kKinds) {
    for (const auto [outputs, inputs] : kSizes) {
      const Packed w(kind, outputs, inputs, false, random_);
      const Rows in = rows_of(inputs);
      std::vector<double> expected = product(w, in);
      for (std::size_t i = 0; i < expected.size(); ++i) {
        expected[i] *= in.scales[i / static_cast<std::size_t>(outputs)];
      }
      const DeviceArray<bf16> x(in.x);
      const DeviceArray<float> squares(in.squares);
      const auto run = [&](int first, int rows) {
        const DeviceArray<float> y(static_cast<std::size_t>(rows * outputs));
        must(project(w.matrix,
                     {x.get() + first * inputs, squares.get() + first * (inputs / kTileOutputs)},
                     kEpsilon, rows, y.get(), nullptr, room()));
        return y.host();
      };
      const auto all = run(0, kMaxBatch);
      expect_close(all, expected, 3e-5);
      expect_company_free(all, outputs, run);
    }
  }
}

TEST_F(CudaPacked, GateMultipliesUpByItsGate) {
  for (const WeightKind kind : kKinds) {
    for (const auto [outputs, inputs] : kSizes) {
      const Packed w(kind, outputs, inputs, true, random_);
      const Rows in = rows_of(inputs);
      const std::vector<double> sums = product(w, in);
      const int ffn = outputs / 2;
      std::vector<double> expected;
      for (int r = 0; r < kMaxBatch; ++r) {
        for (int n = 0; n < ffn; ++n) {
          const double scale = in.scales[static_cast<std::size_t>(r)];
          const double gate_sum = scale * sums[static_cast<std::size_t>(r * outputs + n)];
          const double up = scale * sums[static_cast<std::size_t>(r * outputs + ffn + n)];
          expected.push_back(gate_sum / (1.0 + std::exp(-gate_sum)) * up);
        }
      }
      const DeviceArray<bf16> x(in.x);
      const DeviceArray<float> squares(in.squares);
      const auto run = [&](int first, int rows) {
        const DeviceArray<bf16> out(static_cast<std::size_t>(rows * ffn));
        must(gate(w.matrix,
                  {x.get() + first * inputs, squares.get() + first * (inputs / kTileOutputs)},
                  kEpsilon, rows, out.get(), nullptr, room()));
        return out.host();
      };
      const auto all = run(0, kMaxBatch);
      expect_close(all, expected);
      expect_company_free(all, ffn, run);
    }
  }
}

TEST_F(CudaPacked, AddProductAddsToTheResidual) {
  for (const WeightKind kind : kKinds) {
    for (const auto [outputs, inputs] : kSizes) {
      const Packed w(kind, outputs, inputs, false, random_);
      const Rows in = rows_of(inputs);
      std::vector<double> expected = product(w, in);
      const auto before = normal<float>(expected.size());
      for (std::size_t i = 0; i < expected.size(); ++i) expected[i] += before[i];
      const DeviceArray<bf16> x(in.x);
      const DeviceArray<float> norm(normal<float>(static_cast<std::size_t>(outputs)));
      const auto run = [&](int first, int rows) {
        const DeviceArray<float> residual(std::vector<float>(
            before.begin() + first * outputs, before.begin() + (first + rows) * outputs));
        const DeviceArray<bf16> next(static_cast<std::size_t>(rows * outputs));
        const DeviceArray<float> squares(static_cast<std::size_t>(rows * outputs / kTileOutputs));
        must(add_product(w.matrix, x.get() + first * inputs, rows, residual.get(), norm.get(),
                         {next.get(), squares.get()}, nullptr, room()));
        return residual.host();
      };
      const auto all = run(0, kMaxBatch);
      expect_close(all, expected, 3e-5);
      expect_company_free(all, outputs, run);
    }
  }
}

TEST_F(CudaPacked, WhatIsNoNumberEndsAsNoneInItsRowAlone) {
  constexpr int kInputs = 1568;
  constexpr int kOutputs = 96;
  for (const WeightKind kind : kKinds) {
    const Packed w(kind, kOutputs, kInputs, false, random_);
    for (const float none : {NAN, INFINITY, -INFINITY}) {
      Rows in = rows_of(kInputs);
      in.x[kInputs + 777] = __float2bfloat16(none);  // of row 1
      const DeviceArray<bf16> x(in.x);
      const DeviceArray<float> squares(in.squares);
      const auto run = [&](int first, int rows) {
        const DeviceArray<float> y(static_cast<std::size_t>(rows * kOutputs));
        must(project(w.matrix,
                     {x.get() + first * kInputs, squares.get() + first * (kInputs / kTileOutputs)},
                     kEpsilon, rows, y.get(), nullptr, room()));
        return y.host();
      };
      const auto alone = run(1, 1);
      const auto all = run(0, 3);
      for (std::size_t i = 0; i < kOutputs; ++i) {
        ASSERT_TRUE(std::isnan(alone[i])) << none;
        ASSERT_TRUE(std::isnan(all[kOutputs + i])) << none;
        ASSERT_TRUE(std::isfinite(all[i]) && std::isfinite(all[2 * kOutputs + i])) << none;
      }
    }
  }
}

}  // namespace
}  // namespace kvfs::model::cuda
