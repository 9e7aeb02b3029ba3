// The read path's fast kernels against plain double-precision code, and their promise about bits: a
// row's results know neither the rows beside it nor how the prompt was cut.
#include "engine/model/cuda/read.h"

#include <limits>

#include "tests/engine/model/cuda/kernel_fixture.h"

namespace kvfs::model::cuda {
namespace {

using bf16 = __nv_bfloat16;

constexpr int kGrid = 512;

class CudaRead : public CudaKernels<bf16> {
 protected:
  static std::size_t size(int a, int b) {
    return static_cast<std::size_t>(a) * static_cast<std::size_t>(b);
  }
};

TEST_F(CudaRead, BeginsWithTheTokensRowsNormed) {
  const int width = 576;
  const auto table = normal(size(50, width));
  const std::vector<std::int32_t> tokens{49, 0, 7};
  const auto weight = normal<float>(width);
  const DeviceArray<bf16> on_device(table);
  const DeviceArray<std::int32_t> ids(tokens);
  const DeviceArray<float> weights(weight);
  const DeviceArray<float> residual(size(kGrid, width));
  const DeviceArray<bf16> normed(size(kGrid, width));
  must(begin_rows(on_device.get(), ids.get(), {100, 3, 612}, width, weights.get(), 1e-5F,
                  residual.get(), normed.get(), nullptr));
  const auto rows = residual.host();
  auto got = normed.host();
  got = {got.begin() + 100 * width, got.begin() + 103 * width};
  std::vector<double> expected;
  for (int r = 0; r < 3; ++r) {
    const bf16* row = table.data() + tokens[static_cast<std::size_t>(r)] * width;
    double squares = 0.0;
    for (int i = 0; i < width; ++i) squares += static_cast<double>(number(row[i])) * number(row[i]);
    for (int i = 0; i < width; ++i) {
      ASSERT_EQ(rows[size(100 + r, width) + static_cast<std::size_t>(i)], number(row[i]));
      expected.push_back(number(row[i]) / std::sqrt(squares / width + 1e-5) *
                         weight[static_cast<std::size_t>(i)]);
    }
  }
  expect_close(got, expected);
}

TEST_F(CudaRead, NormsRows) {
  for (const int width : {64, 576, 4096, 8192}) {  // the last is more than threads keep
    const int rows = 5;
    const auto residual = normal<float>(size(kGrid, width), 3.0F);
    const auto weight = normal<float>(static_cast<std::size_t>(width));
    std::vector<double> normed;
    for (int r = 507; r < 512; ++r) {
      const float* row = residual.data() + size(r, width);
      double squares = 0.0;
      for (int i = 0; i < width; ++i) squares += static_cast<double>(row[i]) * row[i];
      for (int i = 0; i < width; ++i) {
        normed.push_back(row[i] / std::sqrt(squares / width + 1e-5) *
                         weight[static_cast<std::size_t>(i)]);
      }
    }
    const DeviceArray<float> in(residual);
    const DeviceArray<float> scale(weight);
    const DeviceArray<bf16> out(residual.size());
    must(norm_rows(in.get(), {507, rows, 507}, width, scale.get(), 1e-5F, out.get(), nullptr));
    const auto got = out.host();
    expect_close(std::vector<bf16>(got.end() - rows * width, got.end()), normed);
    EXPECT_TRUE(std::isnan(number(got[size(506, width)]))) << "a row that nobody asked for";
  }
}

TEST_F(CudaRead, GatesTheUpperHalf) {
  const int ffn = 1536 + 8;
  const auto in = normal(size(kGrid, 2 * ffn), 3.0F);
  std::vector<double> expected;
  for (int r = 20; r < 23; ++r) {
    for (int i = 0; i < ffn; ++i) {
      const double gate = number(in[size(r, 2 * ffn) + static_cast<std::size_t>(i)]);
      const double up = number(in[size(r, 2 * ffn) + static_cast<std::size_t>(ffn + i)]);
      expected.push_back(gate / (1.0 + std::exp(-gate)) * up);
    }
  }
  const DeviceArray<bf16> gate_up(in);
  const DeviceArray<bf16> out(size(kGrid, ffn));
  must(gate_rows(gate_up.get(), {20, 3, 20}, ffn, out.get(), nullptr));
  const auto got = out.host();
  expect_close(std::vector<bf16>(got.begin() + 20 * ffn, got.begin() + 23 * ffn), expected);
}

// One sequence's pages, and rows of the grid that come last in it.
struct Prompt {
  HeadShape shape;
  ReadRows rows;
  std::vector<float> frequencies;
  std::vector<float> qkv;                   // [grid][…]
  std::vector<std::vector<bf16>> contents;  // of the pages before

  int qkv_width() const { return (shape.heads + 2 * shape.kv_heads) * shape.width; }
  int out_width() const { return shape.heads * shape.width; }
  // Head of a row's qkv, as RoPE turns it.
  std::vector<double> turned(int row, int head) const {
    const float* x = qkv.data() + static_cast<std::ptrdiff_t>(row) * qkv_width() +
                     static_cast<std::ptrdiff_t>(head) * shape.width;
    const int half = shape.width / 2;
    std::vector<double> out(static_cast<std::size_t>(shape.width));
    for (int i = 0; i < half; ++i) {
      const auto d = static_cast<std::size_t>(i);
      const float angle = static_cast<float>(rows.position + row - rows.first) * frequencies[d];
      const double c = std::cos(static_cast<double>(angle));
      const double s = std::sin(static_cast<double>(angle));
      out[d] = x[i] * c - x[i + half] * s;
      out[d + static_cast<std::size_t>(half)] = x[i + half] * c + x[i] * s;
    }
    return out;
  }
  std::size_t cell(int side, int kv_head, int position) const {
    return static_cast<std::size_t>(((side * shape.kv_heads + kv_head) * kPage + position % kPage) *
                                    shape.width);
  }
};

class CudaReadAttention : public CudaRead {
 protected:
  Prompt prompt(HeadShape shape, int position, int count) {
    Prompt out{shape, {position % kGrid, count, position}, {}, {}, {}};
    for (int i = 0; i < shape.width / 2; ++i) {
      out.frequencies.push_back(
          std::pow(10000.0F, -2.0F * static_cast<float>(i) / static_cast<float>(shape.width)));
    }
    out.qkv = normal<float>(size(kGrid, out.qkv_width()));
    for (int page = 0; page <= (position + count - 1) / kPage; ++page) {
      out.contents.push_back(
          normal(static_cast<std::size_t>(2 * shape.kv_heads * kPage * shape.width)));
    }
    return out;
  }
  // Everything past the newest row is not a number.
  static void poison(Prompt& p) {
    for (int at = p.rows.position + p.rows.count; at < static_cast<int>(p.contents.size()) * kPage;
         ++at) {
      for (int side = 0; side < 2; ++side) {
        for (int head = 0; head < p.shape.kv_heads; ++head) {
          std::fill_n(
              p.contents.back().begin() + static_cast<std::ptrdiff_t>(p.cell(side, head, at)),
              p.shape.width,
              rounded<bf16>(at % 2 == 0 ? std::numeric_limits<float>::infinity()
                                        : std::numeric_limits<float>::quiet_NaN()));
        }
      }
    }
  }
  // The prompt read in runs of these many rows; out [count][heads · width], and the pages after.
  struct Read {
    std::vector<bf16> out;
    std::vector<std::vector<bf16>> pages;
  };
  Read run(const Prompt& p, const std::vector<int>& runs, bool newest_instructions) {
    const Pages<bf16> pages(p.shape, p.contents, random_);
    const DeviceArray<float> qkv(p.qkv);
    const DeviceArray<float> frequencies(p.frequencies);
    const DeviceArray<bf16> rows_of(size(kGrid, p.out_width()));
    ReadRows rows{p.rows.first, 0, p.rows.position};
    for (const int count : runs) {
      rows.count = count;
      must(turn_and_store(qkv.get(), frequencies.get(), rows, p.shape, pages.place(), rows_of.get(),
                          nullptr));
      must(attend_rows(rows_of.get(), rows, p.shape, pages.place(), nullptr, newest_instructions));
      rows.first += count;
      rows.position += count;
    }
    const auto all = rows_of.host();
    const auto begin = all.begin() + static_cast<std::ptrdiff_t>(p.rows.first) * p.out_width();
    Read out{{begin, begin + static_cast<std::ptrdiff_t>(p.rows.count) * p.out_width()}, {}};
    for (std::size_t i = 0; i < p.contents.size(); ++i) out.pages.push_back(pages.page(i));
    return out;
  }
  static std::vector<double> expected(const Prompt& p,
                                      const std::vector<std::vector<bf16>>& pages) {
    const int width = p.shape.width;
    std::vector<double> out;
    for (int r = 0; r < p.rows.count; ++r) {
      for (int head = 0; head < p.shape.heads; ++head) {
        const auto q = p.turned(p.rows.first + r, head);
        const int kv_head = head / (p.shape.heads / p.shape.kv_heads);
        const auto row = [&](int side, int position) {
          return pages[static_cast<std::size_t>(position / kPage)].data() +
                 p.cell(side, kv_head, position);
        };
        std::vector<double> weights;
        for (int j = 0; j <= p.rows.position + r; ++j) {
          const bf16* key = row(0, j);
          double score = 0.0;
          for (int i = 0; i < width; ++i) score += q[static_cast<std::size_t>(i)] * number(key[i]);
          weights.push_back(std::exp(score / std::sqrt(static_cast<double>(width))));
        }
        double sum = 0.0;
        std::vector<double> value(static_cast<std::size_t>(width));
        for (std::size_t j = 0; j < weights.size(); ++j) {
          sum += weights[j];
          const bf16* of = row(1, static_cast<int>(j));
          for (int i = 0; i < width; ++i) {
            value[static_cast<std::size_t>(i)] += weights[j] * number(of[i]);
          }
        }
        for (const double each : value) out.push_back(each / sum);
      }
    }
    return out;
  }
};

constexpr HeadShape kShapes[] = {{9, 3, 64}, {4, 4, 64}, {4, 1, 128}};

TEST_F(CudaReadAttention, StoresTheRowsAndAttendsToEverythingBefore) {
  for (const HeadShape shape : kShapes) {
    for (const auto& [position, count] : {std::pair{0, 70}, {612, 150}, {1010, 14}}) {
      auto p = prompt(shape, position, count);
      poison(p);
      for (const bool newest : {false, true}) {
        const Read got = run(p, {count}, newest);
        // Queries and weights are rounded to bf16, besides the result.
        expect_close(got.out, expected(p, got.pages), 4e-3);
        std::vector<double> stored;
        std::vector<bf16> keys;
        for (int r = 0; r < count; ++r) {
          for (int head = 0; head < shape.kv_heads; ++head) {
            const int row = p.rows.first + r;
            const auto key = p.turned(row, shape.heads + head);
            stored.insert(stored.end(), key.begin(), key.end());
            const float* value = p.qkv.data() + size(row, p.qkv_width()) +
                                 (shape.heads + shape.kv_heads + head) * shape.width;
            stored.insert(stored.end(), value, value + shape.width);
            for (int side = 0; side < 2; ++side) {
              const bf16* at = got.pages[static_cast<std::size_t>((position + r) / kPage)].data() +
                               p.cell(side, head, position + r);
              keys.insert(keys.end(), at, at + shape.width);
            }
          }
        }
        expect_close(keys, stored);
      }
    }
  }
}

TEST_F(CudaReadAttention, ARowDoesNotDependOnWhereThePromptWasCut) {
  for (const HeadShape shape : kShapes) {
    auto p = prompt(shape, 1024 + 100, 300);
    poison(p);
    for (const bool newest : {false, true}) {
      const Read whole = run(p, {300}, newest);
      for (const auto& runs : {std::vector{100, 200}, {1, 299}, {27, 1, 128, 144}}) {
        const Read cut = run(p, runs, newest);
        EXPECT_TRUE(same_bits(whole.out, cut.out)) << runs.front() << " rows first";
        EXPECT_EQ(whole.pages.size(), cut.pages.size());
      }
    }
  }
}

TEST_F(CudaReadAttention, LongHistoriesAreAttendedToo) {
  for (const HeadShape shape : {HeadShape{1, 1, 128}, HeadShape{2, 1, 64}}) {
    auto p = prompt(shape, 8192 - 40, 40);
    for (const bool newest : {false, true}) {
      const Read got = run(p, {40}, newest);
      expect_close(got.out, expected(p, got.pages), 4e-3);
    }
  }
}

}  // namespace
}  // namespace kvfs::model::cuda
