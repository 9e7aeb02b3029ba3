// The generated path's fast kernels against plain double-precision code, and their promise about
// bits: a row's results depend on its own inputs alone.
#include <limits>
#include <set>

#include "engine/model/cuda/decode.h"
#include "tests/engine/model/cuda/kernel_fixture.h"

namespace kvfs::model::cuda {
namespace {

using bf16 = __nv_bfloat16;

constexpr float kEpsilon = 1e-5F;

class CudaDecode : public CudaKernels<bf16> {
 protected:
  // Rows in front of a norm whose weight is 1, as add_product leaves them.
  struct Normed {
    std::vector<float> residual;
    std::vector<bf16> x;
    std::vector<float> squares;
  };
  Normed normed(int rows, int width) {
    Normed out;
    out.residual = normal<float>(static_cast<std::size_t>(rows * width), 3.0F);
    for (std::size_t i = 0; i < out.residual.size(); i += kTileOutputs) {
      float sum = 0.0F;
      for (std::size_t j = i; j < i + kTileOutputs; ++j) {
        out.x.push_back(rounded<bf16>(out.residual[j]));
        sum += out.residual[j] * out.residual[j];
      }
      out.squares.push_back(sum);
    }
    return out;
  }
  static double scale_of(const Normed& in, int row, int width) {
    double sum = 0.0;
    for (int i = 0; i < width; ++i) {
      const double x = in.residual[static_cast<std::size_t>(row * width + i)];
      sum += x * x;
    }
    return 1.0 / std::sqrt(sum / width + kEpsilon);
  }
  static double dot(const std::vector<bf16>& w, int output, const std::vector<bf16>& x, int row,
                    int inputs) {
    double sum = 0.0;
    for (int k = 0; k < inputs; ++k) {
      sum += static_cast<double>(number(w[static_cast<std::size_t>(output * inputs + k)])) *
             number(x[static_cast<std::size_t>(row * inputs + k)]);
    }
    return sum;
  }
  // Each part of `together` equals what the rows give in smaller companies.
  template <class E, class Run>
  static void expect_company_free(const std::vector<E>& together, int width, const Run& run) {
    for (const int rows : {1, 2, 7, 8, 9}) {
      for (int first = 0; first + rows <= kMaxBatch; first += rows) {
        const std::vector<E> mine(together.begin() + first * width,
                                  together.begin() + (first + rows) * width);
        ASSERT_TRUE(same_bits(run(first, rows), mine)) << rows << " rows from " << first;
      }
    }
  }
};

struct Size {
  int outputs;
  int inputs;
};
// Fewer chunks than warps, not a multiple of a chunk, more tiles than blocks.
constexpr Size kSizes[] = {{48, 64}, {960, 576}, {80, 1544}, {16384, 256}, {4096, 1536}};

TEST_F(CudaDecode, ProjectMultipliesWhatWasNormed) {
  for (const auto [outputs, inputs] : kSizes) {
    if (inputs % kTileOutputs != 0) continue;
    const int ragged = outputs - 5;  // the last tile is not full
    const int rows = between(1, kMaxBatch);
    const auto w = normal(static_cast<std::size_t>(ragged * inputs), 0.05F);
    const Normed in = normed(rows, inputs);
    std::vector<double> expected;
    for (int r = 0; r < rows; ++r) {
      for (int n = 0; n < ragged; ++n) {
        expected.push_back(scale_of(in, r, inputs) * dot(w, n, in.x, r, inputs));
      }
    }
    const DeviceArray<bf16> weights(w);
    const DeviceArray<bf16> x(in.x);
    const DeviceArray<float> squares(in.squares);
    const DeviceArray<float> y(expected.size());
    must(project({weights.get(), ragged, inputs}, {x.get(), squares.get()}, kEpsilon, rows, y.get(),
                 nullptr));
    expect_close(y.host(), expected);
  }
}

TEST_F(CudaDecode, GateMultipliesUpByItsGate) {
  for (const auto [outputs, inputs] : kSizes) {
    if (inputs % kTileOutputs != 0) continue;
    const int rows = between(1, kMaxBatch);
    const int ffn = outputs / 2;
    const auto w = normal(static_cast<std::size_t>(outputs * inputs), 0.05F);
    const Normed in = normed(rows, inputs);
    std::vector<double> expected;
    for (int r = 0; r < rows; ++r) {
      const double scale = scale_of(in, r, inputs);
      for (int n = 0; n < ffn; ++n) {
        const double g = scale * dot(w, n, in.x, r, inputs);
        expected.push_back(g / (1.0 + std::exp(-g)) * scale * dot(w, ffn + n, in.x, r, inputs));
      }
    }
    const DeviceArray<bf16> weights(w);
    const DeviceArray<bf16> x(in.x);
    const DeviceArray<float> squares(in.squares);
    const DeviceArray<bf16> out(expected.size());
    must(gate({weights.get(), outputs, inputs}, {x.get(), squares.get()}, kEpsilon, rows, out.get(),
              nullptr));
    expect_close(out.host(), expected);
  }
}

TEST_F(CudaDecode, AddProductAddsAndPreparesTheNextNorm) {
  for (const auto [outputs, inputs] : kSizes) {
    const int rows = between(1, kMaxBatch);
    const auto w = normal(static_cast<std::size_t>(outputs * inputs), 0.05F);
    const auto x = normal(static_cast<std::size_t>(rows * inputs));
    const auto before = normal<float>(static_cast<std::size_t>(rows * outputs));
    const auto norm = normal<float>(static_cast<std::size_t>(outputs));
    std::vector<double> sums;
    std::vector<double> weighted;
    std::vector<double> squares;
    for (int r = 0; r < rows; ++r) {
      for (int n = 0; n < outputs; ++n) {
        const double sum =
            before[static_cast<std::size_t>(r * outputs + n)] + dot(w, n, x, r, inputs);
        sums.push_back(sum);
        weighted.push_back(sum * norm[static_cast<std::size_t>(n)]);
        if (n % kTileOutputs == 0) squares.push_back(0.0);
        squares.back() += sum * sum;
      }
    }
    const DeviceArray<bf16> weights(w);
    const DeviceArray<bf16> in(x);
    const DeviceArray<float> residual(before);
    const DeviceArray<float> norm_weight(norm);
    const DeviceArray<bf16> next(weighted.size());
    const DeviceArray<float> next_squares(squares.size());
    must(add_product({weights.get(), outputs, inputs}, in.get(), rows, residual.get(),
                     norm_weight.get(), {next.get(), next_squares.get()}, nullptr));
    expect_close(residual.host(), sums);
    expect_close(next.host(), weighted);
    expect_close(next_squares.host(), squares);
  }
}

TEST_F(CudaDecode, ARowOfAProductDoesNotDependOnItsCompany) {
  const int outputs = 4096;
  const int inputs = 1536;
  const DeviceArray<bf16> w(normal(static_cast<std::size_t>(outputs * inputs), 0.05F));
  const Matrix matrix{w.get(), outputs, inputs};
  const Normed in = normed(kMaxBatch, inputs);
  const DeviceArray<bf16> x(in.x);
  const DeviceArray<float> squares(in.squares);
  const auto rows_from = [&](int first) {
    return NormRows{x.get() + first * inputs, squares.get() + first * (inputs / kTileOutputs)};
  };
  const auto projected = [&](int first, int rows) {
    const DeviceArray<float> y(static_cast<std::size_t>(rows * outputs));
    must(project(matrix, rows_from(first), kEpsilon, rows, y.get(), nullptr));
    return y.host();
  };
  expect_company_free(projected(0, kMaxBatch), outputs, projected);
  const auto gated = [&](int first, int rows) {
    const DeviceArray<bf16> out(static_cast<std::size_t>(rows * outputs / 2));
    must(gate(matrix, rows_from(first), kEpsilon, rows, out.get(), nullptr));
    return out.host();
  };
  expect_company_free(gated(0, kMaxBatch), outputs / 2, gated);

  const auto before = normal<float>(static_cast<std::size_t>(kMaxBatch * outputs));
  const DeviceArray<float> norm(normal<float>(static_cast<std::size_t>(outputs)));
  const auto added = [&](int first, int rows) {  // residual, next and squares, side by side
    const DeviceArray<float> residual(std::vector<float>(
        before.begin() + first * outputs, before.begin() + (first + rows) * outputs));
    const DeviceArray<bf16> next(static_cast<std::size_t>(rows * outputs));
    const DeviceArray<float> sums(static_cast<std::size_t>(rows * outputs / kTileOutputs));
    must(add_product(matrix, x.get() + first * inputs, rows, residual.get(), norm.get(),
                     {next.get(), sums.get()}, nullptr));
    std::vector<float> out;
    const auto a = residual.host();
    const auto b = next.host();
    const auto c = sums.host();
    for (int r = 0; r < rows; ++r) {
      out.insert(out.end(), a.begin() + r * outputs, a.begin() + (r + 1) * outputs);
      for (int i = 0; i < outputs; ++i) {
        out.push_back(number(b[static_cast<std::size_t>(r * outputs + i)]));
      }
      const int tiles = outputs / kTileOutputs;
      out.insert(out.end(), c.begin() + r * tiles, c.begin() + (r + 1) * tiles);
    }
    return out;
  };
  expect_company_free(added(0, kMaxBatch), 2 * outputs + outputs / kTileOutputs, added);
}

TEST_F(CudaDecode, AStepBeginsWithTheTokensRowsAndTheirAngles) {
  const int width = 576;
  const int head_width = 64;
  const auto table = normal(50 * width);
  const std::vector<std::int32_t> tokens{49, 0, 7};
  const std::vector<RowPlace> places{{0, 0}, {8191, 0}, {300, 0}};
  const auto norm = normal<float>(width);
  std::vector<float> frequencies;
  for (int i = 0; i < head_width / 2; ++i) {
    frequencies.push_back(std::pow(10000.0F, -static_cast<float>(i) / 32.0F));
  }
  const DeviceArray<bf16> on_device(table);
  const DeviceArray<std::int32_t> ids(tokens);
  const DeviceArray<RowPlace> where(places);
  const DeviceArray<float> norm_weight(norm);
  const DeviceArray<float> turning(frequencies);
  const DeviceArray<float> residual(3 * width);
  const DeviceArray<bf16> next(3 * width);
  const DeviceArray<float> squares(3 * width / kTileOutputs);
  const DeviceArray<float2> turns(3 * head_width / 2);
  must(begin_step(on_device.get(), {where.get(), ids.get(), 3}, width, norm_weight.get(),
                  turning.get(), head_width, residual.get(), {next.get(), squares.get()},
                  turns.get(), nullptr));
  std::vector<double> rows;
  std::vector<double> weighted;
  std::vector<double> sums;
  std::vector<double> angles;
  std::vector<float> got_angles;
  const auto got_turns = turns.host();
  for (std::size_t r = 0; r < 3; ++r) {
    for (int i = 0; i < width; ++i) {
      rows.push_back(number(table[static_cast<std::size_t>(tokens[r] * width + i)]));
      weighted.push_back(rows.back() * norm[static_cast<std::size_t>(i)]);
      if (i % kTileOutputs == 0) sums.push_back(0.0);
      sums.back() += rows.back() * rows.back();
    }
    for (std::size_t i = 0; i < frequencies.size(); ++i) {
      const double angle = static_cast<float>(places[r].position) * frequencies[i];
      angles.insert(angles.end(), {std::cos(angle), std::sin(angle)});
      const float2 turn = got_turns[r * frequencies.size() + i];
      got_angles.insert(got_angles.end(), {turn.x, turn.y});
    }
  }
  expect_close(residual.host(), rows);
  expect_close(next.host(), weighted);
  expect_close(squares.host(), sums);
  expect_close(got_angles, angles);
}

// Rows and the pages they look at; places' first_page tables may name a page more than once.
struct Scene {
  HeadShape shape;
  std::vector<int> positions;
  std::vector<std::vector<int>> histories;  // of each row: indices into contents
  std::vector<float> qkv;
  std::vector<float2> turns;
  std::vector<std::vector<bf16>> contents;

  int qkv_width() const { return (shape.heads + 2 * shape.kv_heads) * shape.width; }
  std::vector<float> turned(int row, int head) const {
    std::vector<float> out(static_cast<std::size_t>(shape.width));
    const float* in = qkv.data() + row * qkv_width() + head * shape.width;
    const auto half = static_cast<std::size_t>(shape.width / 2);
    for (std::size_t i = 0; i < half; ++i) {
      const float2 by = turns[static_cast<std::size_t>(row) * half + i];
      out[i] = in[i] * by.x - in[i + half] * by.y;
      out[i + half] = in[i + half] * by.x + in[i] * by.y;
    }
    return out;
  }
};

struct Attended {
  std::vector<bf16> out;
  std::vector<std::vector<bf16>> pages;
};

class CudaDecodeAttention : public CudaDecode {
 protected:
  Scene scene(HeadShape shape, std::vector<int> positions,
              std::vector<std::vector<int>> histories) {
    Scene out{shape, std::move(positions), std::move(histories), {}, {}, {}};
    int pages = 0;
    for (const auto& history : out.histories) {
      for (const int page : history) pages = std::max(pages, page + 1);
    }
    out.qkv = normal<float>(out.positions.size() * static_cast<std::size_t>(out.qkv_width()));
    for (const int position : out.positions) {
      for (int i = 0; i < shape.width / 2; ++i) {
        const float angle =
            static_cast<float>(position) *
            std::pow(10000.0F, -2.0F * static_cast<float>(i) / static_cast<float>(shape.width));
        out.turns.push_back({std::cos(angle), std::sin(angle)});
      }
    }
    for (int i = 0; i < pages; ++i) {
      out.contents.push_back(
          normal(static_cast<std::size_t>(2 * shape.kv_heads * kPage * shape.width)));
    }
    return out;
  }

  // Rows first … of a scene; pages that whole rows share are read once if `sharing`.
  Attended run(const Scene& s, int first, int rows, bool sharing) {
    const Pages<bf16> pages(s.shape, s.contents, random_);
    std::vector<RowPlace> places;
    std::vector<void*> table;
    std::vector<PageWork> work;
    int most_pages = 0;
    for (int r = 0; r < rows; ++r) {
      const auto& history = s.histories[static_cast<std::size_t>(first + r)];
      const int position = s.positions[static_cast<std::size_t>(first + r)];
      places.push_back({position, static_cast<std::int32_t>(table.size())});
      most_pages = std::max(most_pages, position / kPageTokens + 1);
      for (int p = 0; p <= position / kPage; ++p) {
        const int page = history[static_cast<std::size_t>(p)];
        table.push_back(pages.host_table[static_cast<std::size_t>(page)]);
        const bool whole = (p + 1) * kPage <= position;
        const auto known = std::find_if(work.begin(), work.end(), [&](const PageWork& w) {
          const int other = first + __builtin_ctz(w.rows);
          return sharing && whole && w.page == p &&
                 s.histories[static_cast<std::size_t>(other)][static_cast<std::size_t>(p)] == page;
        });
        if (known == work.end()) {
          work.push_back({p, 1U << r});
        } else {
          known->rows |= 1U << r;
        }
      }
    }
    const auto singles = std::stable_partition(
        work.begin(), work.end(), [](const PageWork& w) { return __builtin_popcount(w.rows) > 1; });
    const int shared = static_cast<int>(singles - work.begin());
    work.resize(work.size() + 3);  // room that is not used
    const WorkRoom room{shared, static_cast<int>(work.size()) - shared};
    const DeviceArray<float> qkv(std::vector<float>(
        s.qkv.begin() + first * s.qkv_width(), s.qkv.begin() + (first + rows) * s.qkv_width()));
    const int half = s.shape.width / 2;
    const DeviceArray<float2> turns(std::vector<float2>(s.turns.begin() + first * half,
                                                        s.turns.begin() + (first + rows) * half));
    const DeviceArray<RowPlace> where(places);
    const DeviceArray<void*> addresses(table);
    const DeviceArray<PageWork> items(work);
    const auto slots = static_cast<std::size_t>(rows * s.shape.heads * most_pages);
    const DeviceArray<float> values(slots * static_cast<std::size_t>(s.shape.width));
    const DeviceArray<float2> sums(slots);
    const DeviceArray<bf16> out(static_cast<std::size_t>(rows * s.shape.heads * s.shape.width));
    const KvPlace kv{addresses.get(), 0, static_cast<std::int64_t>(pages.side())};
    must(attend(qkv.get(), turns.get(), {where.get(), nullptr, rows}, items.get(), room, s.shape,
                kv, {values.get(), sums.get(), most_pages}, out.get(), nullptr));
    Attended got{out.host(), {}};
    for (std::size_t i = 0; i < s.contents.size(); ++i) got.pages.push_back(pages.page(i));
    return got;
  }

  // The row's place in a page after the step, per side and head.
  static std::size_t cell(const Scene& s, int side, int kv_head, int position) {
    return static_cast<std::size_t>(
        ((side * s.shape.kv_heads + kv_head) * kPage + position % kPage) * s.shape.width);
  }
  static std::vector<double> expected(const Scene& s, const std::vector<std::vector<bf16>>& pages) {
    std::vector<double> out;
    const int width = s.shape.width;
    for (std::size_t r = 0; r < s.positions.size(); ++r) {
      for (int head = 0; head < s.shape.heads; ++head) {
        const auto q = s.turned(static_cast<int>(r), head);
        const int kv_head = head / (s.shape.heads / s.shape.kv_heads);
        const auto at = [&](int side, int position, int i) {
          const int page = s.histories[r][static_cast<std::size_t>(position / kPage)];
          return static_cast<double>(number(pages[static_cast<std::size_t>(
              page)][cell(s, side, kv_head, position) + static_cast<std::size_t>(i)]));
        };
        std::vector<double> weights;
        for (int j = 0; j <= s.positions[r]; ++j) {
          double score = 0.0;
          for (int i = 0; i < width; ++i) score += q[static_cast<std::size_t>(i)] * at(0, j, i);
          weights.push_back(score / std::sqrt(static_cast<double>(width)));
        }
        const double most = *std::max_element(weights.begin(), weights.end());
        double sum = 0.0;
        for (double& weight : weights) sum += weight = std::exp(weight - most);
        for (int i = 0; i < width; ++i) {
          double value = 0.0;
          for (int j = 0; j <= s.positions[r]; ++j) {
            value += weights[static_cast<std::size_t>(j)] / sum * at(1, j, i);
          }
          out.push_back(value);
        }
      }
    }
    return out;
  }
};

constexpr HeadShape kShapes[] = {{9, 3, 64}, {32, 8, 128}, {32, 8, 64}, {4, 4, 64}, {40, 2, 128}};

TEST_F(CudaDecodeAttention, AttendsToEverythingBeforeAndStoresTheNewest) {
  for (const HeadShape shape : kShapes) {
    const auto s =
        scene(shape, {0, 700, 511, 255, 128, 127}, {{0}, {1, 2, 3}, {4, 5}, {6}, {7}, {8}});
    const Attended together = run(s, 0, 6, false);
    expect_close(together.out, expected(s, together.pages));
    std::set<std::pair<int, std::size_t>> written;
    std::vector<double> stored;
    std::vector<bf16> got;
    for (int r = 0; r < 6; ++r) {
      const int position = s.positions[static_cast<std::size_t>(r)];
      const int page = s.histories[static_cast<std::size_t>(r)].back();
      for (int kv_head = 0; kv_head < shape.kv_heads; ++kv_head) {
        const auto key = s.turned(r, shape.heads + kv_head);
        for (int side = 0; side < 2; ++side) {
          for (int i = 0; i < shape.width; ++i) {
            const auto at = cell(s, side, kv_head, position) + static_cast<std::size_t>(i);
            written.insert({page, at});
            got.push_back(together.pages[static_cast<std::size_t>(page)][at]);
            stored.push_back(
                side == 0 ? key[static_cast<std::size_t>(i)]
                          : s.qkv[static_cast<std::size_t>(
                                r * s.qkv_width() +
                                (shape.heads + shape.kv_heads + kv_head) * shape.width + i)]);
          }
        }
      }
    }
    expect_close(got, stored);
    for (std::size_t page = 0; page < s.contents.size(); ++page) {
      for (std::size_t i = 0; i < s.contents[page].size(); ++i) {
        if (written.contains({static_cast<int>(page), i})) continue;
        ASSERT_EQ(number(together.pages[page][i]), number(s.contents[page][i]));
      }
    }
    for (int row = 0; row < 6; ++row) {
      const auto width = shape.heads * shape.width;
      const std::vector<bf16> mine(together.out.begin() + row * width,
                                   together.out.begin() + (row + 1) * width);
      EXPECT_TRUE(same_bits(mine, run(s, row, 1, false).out)) << "row " << row << "'s company";
    }
  }
}

TEST_F(CudaDecodeAttention, ASharedPrefixReadOnceGivesTheBitsOfReadingItForEach) {
  for (const HeadShape shape : kShapes) {
    std::vector<int> positions;
    std::vector<std::vector<int>> histories;
    for (int row = 0; row < kMaxBatch; ++row) {
      positions.push_back(row < 12 ? 512 + 7 * row : 256 + row);
      // Two families, and rows of each that end in pages of their own.
      const int start = row % 3 == 0 ? 0 : 2;
      histories.push_back(row < 12 ? std::vector<int>{start, start + 1, 4 + row}
                                   : std::vector<int>{start, 4 + row});
    }
    const auto s = scene(shape, positions, histories);
    const Attended shared = run(s, 0, kMaxBatch, true);
    expect_close(shared.out, expected(s, shared.pages));
    EXPECT_TRUE(same_bits(shared.out, run(s, 0, kMaxBatch, false).out));
  }
}

TEST_F(CudaDecodeAttention, WhatComesLaterIsNeverSeen) {
  for (const HeadShape shape : kShapes) {
    for (const int position : {10, 127, 128, 300}) {
      std::vector<int> history;
      for (int p = 0; p <= position / kPage; ++p) history.push_back(p);
      auto s = scene(shape, {position}, {history});
      const auto clean = run(s, 0, 1, false);
      auto& last = s.contents.back();
      for (int side = 0; side < 2; ++side) {
        for (int head = 0; head < shape.kv_heads; ++head) {
          for (int j = position % kPage; j < kPage; ++j) {
            std::fill_n(last.begin() + static_cast<std::ptrdiff_t>(cell(s, side, head, j)),
                        shape.width,
                        rounded<bf16>(j % 2 == 0 ? std::numeric_limits<float>::infinity()
                                                 : std::numeric_limits<float>::quiet_NaN()));
          }
        }
      }
      EXPECT_TRUE(same_bits(clean.out, run(s, 0, 1, false).out)) << position;
    }
  }
}

}  // namespace
}  // namespace kvfs::model::cuda
