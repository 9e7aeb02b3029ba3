// Each kernel against plain double-precision code, on fresh random numbers, and its promise about
// bits.
#include "tests/engine/model/cuda/kernel_fixture.h"

namespace kvfs::model::cuda {
namespace {

TYPED_TEST_SUITE(CudaKernels, KernelTypes, KernelTypeNames);

TYPED_TEST(CudaKernels, EmbeddingTakesTheTokensRows) {
  const int width = 576;
  const auto table = this->normal(50 * width);
  const std::vector<std::int32_t> tokens{49, 0, 7, 7};
  const DeviceArray<TypeParam> on_device(table);
  const DeviceArray<std::int32_t> ids(tokens);
  const DeviceArray<float> out(tokens.size() * width);
  must(embed(on_device.get(), ids.get(), 4, width, 1.0F, out.get(), nullptr));
  const auto got = out.host();
  for (int row = 0; row < 4; ++row) {
    for (int i = 0; i < width; ++i) {
      ASSERT_EQ(
          got[static_cast<std::size_t>(row * width + i)],
          number(
              table[static_cast<std::size_t>(tokens[static_cast<std::size_t>(row)] * width + i)]));
    }
  }
}

TYPED_TEST(CudaKernels, RmsNormDividesByTheRootOfTheMeanSquare) {
  for (const int width : {64, 576, 4096}) {
    const int rows = 5;
    const auto x = this->template normal<float>(static_cast<std::size_t>(rows * width), 3.0F);
    const auto weight = this->template normal<float>(static_cast<std::size_t>(width));
    std::vector<double> expected;
    for (int r = 0; r < rows; ++r) {
      const float* row = x.data() + r * width;
      double squares = 0.0;
      for (int i = 0; i < width; ++i) squares += static_cast<double>(row[i]) * row[i];
      for (int i = 0; i < width; ++i) {
        expected.push_back(row[i] / std::sqrt(squares / width + 1e-5) *
                           weight[static_cast<std::size_t>(i)]);
      }
    }
    const DeviceArray<float> in(x);
    const DeviceArray<float> scale(weight);
    const DeviceArray<TypeParam> out(x.size());
    const NormRule rule{false, width, 1e-5F, scale.get(), nullptr};
    must(norm(rule, in.get(), rows, 1, width, out.get(), nullptr));
    this->expect_close(out.host(), expected);
  }
}

TYPED_TEST(CudaKernels, SwigluGatesTheUpperHalf) {
  const int rows = 3;
  const int ffn = 1536 + 8;
  const auto in = this->template normal<float>(static_cast<std::size_t>(rows * 2 * ffn), 3.0F);
  std::vector<double> expected;
  for (int r = 0; r < rows; ++r) {
    for (int i = 0; i < ffn; ++i) {
      const double gate = in[static_cast<std::size_t>(r * 2 * ffn + i)];
      const double up = in[static_cast<std::size_t>(r * 2 * ffn + ffn + i)];
      expected.push_back(gate / (1.0 + std::exp(-gate)) * up);
    }
  }
  const DeviceArray<float> gate_up(in);
  const DeviceArray<TypeParam> out(expected.size());
  must(activate(Activation::kSilu, true, gate_up.get(), rows, ffn, out.get(), nullptr));
  this->expect_close(out.host(), expected);
}

TYPED_TEST(CudaKernels, LinearRowsMultipliesAndAdds) {
  for (const int rows : {1, 2, 4, 7, kMaxBatch}) {
    const int outputs = 5 + this->between(0, 400);
    const int inputs = 8 * this->between(1, 200);
    const auto w = this->normal(static_cast<std::size_t>(outputs * inputs), 0.05F);
    const auto x = this->normal(static_cast<std::size_t>(rows * inputs));
    const auto before = this->template normal<float>(static_cast<std::size_t>(rows * outputs));
    std::vector<double> product;
    std::vector<double> sum;
    for (int r = 0; r < rows; ++r) {
      for (int n = 0; n < outputs; ++n) {
        double dot = 0.0;
        for (int k = 0; k < inputs; ++k) {
          dot += static_cast<double>(number(w[static_cast<std::size_t>(n * inputs + k)])) *
                 number(x[static_cast<std::size_t>(r * inputs + k)]);
        }
        product.push_back(dot);
        sum.push_back(dot + before[static_cast<std::size_t>(r * outputs + n)]);
      }
    }
    const DeviceArray<TypeParam> weights(w);
    const DeviceArray<TypeParam> in(x);
    const DeviceArray<float> out(product.size());
    must(linear_rows(weights.get(), in.get(), rows, outputs, inputs, false, out.get(), nullptr));
    this->expect_close(out.host(), product);
    const DeviceArray<float> added(before);
    must(linear_rows(weights.get(), in.get(), rows, outputs, inputs, true, added.get(), nullptr));
    this->expect_close(added.host(), sum);
  }
}

TYPED_TEST(CudaKernels, ARowOfLinearRowsDoesNotDependOnItsCompany) {
  const int outputs = 300;
  const int inputs = 1544;
  const DeviceArray<TypeParam> w(this->normal(outputs * inputs, 0.05F));
  const auto x = this->normal(kMaxBatch * inputs);
  const DeviceArray<TypeParam> in(x);
  const DeviceArray<float> all(kMaxBatch * outputs);
  must(linear_rows(w.get(), in.get(), kMaxBatch, outputs, inputs, false, all.get(), nullptr));
  const auto together = all.host();
  for (const int rows : {1, 3, 4, 5}) {
    for (int first = 0; first + rows <= kMaxBatch; first += rows) {
      const DeviceArray<float> some(static_cast<std::size_t>(rows * outputs));
      must(linear_rows(w.get(), in.get() + first * inputs, rows, outputs, inputs, false, some.get(),
                       nullptr));
      EXPECT_TRUE(
          same_bits(some.host(), std::vector<float>(together.begin() + first * outputs,
                                                    together.begin() + (first + rows) * outputs)));
    }
  }
}

TYPED_TEST(CudaKernels, RopeTurnsQueriesAndStoresKeysAndValues) {
  using Kv = KvOf<TypeParam>;
  for (const HeadShape shape : {HeadShape{9, 3, 64}, HeadShape{8, 8, 128}}) {
    const std::vector<RowPlace> places{{0, 0}, {300, 0}, {511, 0}, {17, 2}};  // two pages, then one
    const int heads = shape.heads + 2 * shape.kv_heads;
    const auto in =
        this->template normal<float>(places.size() * static_cast<std::size_t>(heads * shape.width));
    std::vector<float> frequencies;
    for (int i = 0; i < shape.width / 2; ++i) {
      frequencies.push_back(
          std::pow(10000.0F, -2.0F * static_cast<float>(i) / static_cast<float>(shape.width)));
    }
    const std::vector<Kv> zeros(static_cast<std::size_t>(2 * shape.kv_heads * kPage * shape.width),
                                rounded<Kv>(0.0F));
    const Pages<Kv> pages(shape, {zeros, zeros, zeros}, this->random_);
    const DeviceArray<float> qkv(in);
    const DeviceArray<float> on_device(frequencies);
    const DeviceArray<RowPlace> where(places);
    must(rope_and_store<Kv>(qkv.get(), {on_device.get(), shape.width / 2}, where.get(), 4, shape,
                            pages.place(), nullptr));

    const auto got = qkv.host();
    std::vector<float> queries;
    std::vector<double> expected_queries;
    std::vector<Kv> stored;
    std::vector<double> expected_stored;
    for (std::size_t r = 0; r < places.size(); ++r) {
      const auto slot = static_cast<std::size_t>(places[r].position % kPage);
      const auto page =
          pages.page(static_cast<std::size_t>(places[r].first_page + places[r].position / kPage));
      for (int head = 0; head < heads; ++head) {
        for (int i = 0; i < shape.width; ++i) {
          const std::size_t at =
              (r * static_cast<std::size_t>(heads) + static_cast<std::size_t>(head)) *
              static_cast<std::size_t>(shape.width);
          const int pair = i % (shape.width / 2);
          // The angle is fp32 by definition (transformers computes it so).
          const double angle =
              static_cast<float>(places[r].position) * frequencies[static_cast<std::size_t>(pair)];
          const double low = in[at + static_cast<std::size_t>(pair)];
          const double high = in[at + static_cast<std::size_t>(pair + shape.width / 2)];
          const double turned = i < shape.width / 2
                                    ? low * std::cos(angle) - high * std::sin(angle)
                                    : high * std::cos(angle) + low * std::sin(angle);
          const bool is_value = head >= shape.heads + shape.kv_heads;
          const double wanted = is_value ? in[at + static_cast<std::size_t>(i)] : turned;
          if (head < shape.heads) {
            queries.push_back(got[at + static_cast<std::size_t>(i)]);
            expected_queries.push_back(wanted);
          } else {
            const auto kv_head = static_cast<std::size_t>((head - shape.heads) % shape.kv_heads);
            stored.push_back(page[(is_value ? pages.side() : 0) +
                                  (kv_head * kPage + slot) * static_cast<std::size_t>(shape.width) +
                                  static_cast<std::size_t>(i)]);
            expected_stored.push_back(wanted);
          }
        }
      }
    }
    this->expect_close(queries, expected_queries);
    this->expect_close(stored, expected_stored);
  }
}

// What a convolution gave a step's rows, and what its pages keep then.
template <class T>
struct Convolved {
  Convolved(int pages, std::int64_t page_elements)
      : memory(std::vector<KvOf<T>>(static_cast<std::size_t>(pages * page_elements),
                                    rounded<KvOf<T>>(0.0F))) {
    for (int i = 0; i < pages; ++i) addresses.push_back(memory.get() + i * page_elements);
    table = std::make_unique<DeviceArray<void*>>(addresses);
  }
  void step(const std::vector<float>& gates, const std::vector<RowPlace>& places,
            const ConvolutionRule& rule) {
    const DeviceArray<float> in(gates);
    const DeviceArray<RowPlace> where(places);
    const DeviceArray<T> to(places.size() * static_cast<std::size_t>(rule.channels));
    must(short_convolution<T>(in.get(), where.get(), static_cast<int>(places.size()), rule,
                              table->get(), to.get(), nullptr));
    const auto rows = to.host();
    out.insert(out.end(), rows.begin(), rows.end());
  }
  DeviceArray<KvOf<T>> memory;
  std::vector<void*> addresses;
  std::unique_ptr<DeviceArray<void*>> table;
  std::vector<T> out;
};

TYPED_TEST(CudaKernels, AShortConvolutionIsTheSumOfItsTapsHoweverItsRowsAreCut) {
  constexpr int kTokens = 264;  // past a block's end
  for (const auto& [channels, taps] : {std::pair(40, 3), {300, 4}, {264, 1}}) {
    const auto width = static_cast<std::size_t>(channels);
    const auto gates = this->template normal<float>(kTokens * 3 * width);
    const auto weights = this->template normal<float>(static_cast<std::size_t>(taps) * width);
    const auto bias = this->template normal<float>(width);
    const DeviceArray<float> on_device(weights);
    const DeviceArray<float> bias_there(bias);
    const std::int64_t page = 8 + std::int64_t{taps} * channels;
    const ConvolutionRule rule{channels, taps, on_device.get(), bias_there.get(), 8};
    const auto input = [&](std::size_t pos, std::size_t c) {
      const float* row = &gates[pos * 3 * width];
      return rounded<KvOf<TypeParam>>(row[c] * row[2 * width + c]);
    };
    std::vector<double> expected;
    for (std::size_t pos = 0; pos < kTokens; ++pos) {
      for (std::size_t c = 0; c < width; ++c) {
        double sum = bias[c];
        for (std::size_t k = 0; k < static_cast<std::size_t>(taps); ++k) {
          const std::size_t back = static_cast<std::size_t>(taps) - 1 - k;
          if (back <= pos) sum += double{weights[k * width + c]} * number(input(pos - back, c));
        }
        expected.push_back(sum * gates[(pos * 3 + 1) * width + c]);
      }
    }
    const auto read = [&](std::vector<std::size_t> cuts) {
      Convolved<TypeParam> made(2, page);
      cuts.push_back(kTokens);
      std::size_t begin = 0;
      for (const std::size_t end : cuts) {
        std::vector<RowPlace> places;
        for (std::size_t pos = begin; pos < end; ++pos)
          places.push_back({static_cast<std::int32_t>(pos), 0});
        made.step({gates.begin() + static_cast<std::ptrdiff_t>(begin * 3 * width),
                   gates.begin() + static_cast<std::ptrdiff_t>(end * 3 * width)},
                  places, rule);
        begin = end;
      }
      return std::pair(made.out, made.memory.host());
    };
    const auto [whole, kept] = read({});
    this->expect_close(whole, expected);
    for (const std::size_t pos : {std::size_t{255}, std::size_t{kTokens - 1}}) {
      const std::size_t at = (pos / kPage) * static_cast<std::size_t>(page) + 8 +
                             pos % kPage % static_cast<std::size_t>(taps) * width;
      for (std::size_t c = 0; c < width; ++c)
        ASSERT_EQ(number(kept[at + c]), number(input(pos, c))) << pos;
    }
    for (const auto& cuts : {std::vector<std::size_t>{1, 2, 3, 254, 257}, {100, 255, 256, 263}}) {
      const auto [parts, kept_of_parts] = read(cuts);
      EXPECT_TRUE(same_bits(parts, whole));
      EXPECT_TRUE(same_bits(kept_of_parts, kept));
    }
  }
}

TYPED_TEST(CudaKernels, ARowOfAShortConvolutionDoesNotDependOnItsCompany) {
  constexpr int kChannels = 72;
  constexpr int kTaps = 3;
  const DeviceArray<float> weights(this->template normal<float>(kTaps * kChannels));
  const DeviceArray<float> bias(this->template normal<float>(kChannels));
  const ConvolutionRule rule{kChannels, kTaps, weights.get(), bias.get(), 0};
  // Two sequences of two pages each, at neighbouring rows and positions.
  const std::vector<RowPlace> places{{256, 0}, {257, 2}};
  std::vector<std::vector<float>> gates;
  for (int i = 0; i < 6; ++i) gates.push_back(this->template normal<float>(3 * kChannels));
  const auto run = [&](bool together) {
    Convolved<TypeParam> made(4, kTaps * kChannels);
    made.step(gates[0], {{255, 0}}, rule);
    made.step(gates[1], {{256, 2}}, rule);
    made.out.clear();
    if (together) {
      std::vector<float> both = gates[2];
      both.insert(both.end(), gates[3].begin(), gates[3].end());
      made.step(both, places, rule);
    } else {
      made.step(gates[2], {places[0]}, rule);
      made.step(gates[3], {places[1]}, rule);
    }
    return std::pair(made.out, made.memory.host());
  };
  const auto alone = run(false);
  const auto together = run(true);
  EXPECT_TRUE(same_bits(alone.first, together.first));
  EXPECT_TRUE(same_bits(alone.second, together.second));
}

TEST(CudaKernelsOfFp32, AddAdds) {
  if (!has_gpu()) GTEST_SKIP() << "no NVIDIA GPU here";
  std::vector<float> x;
  std::vector<float> y;
  std::vector<float> sum;
  for (int i = 0; i < 1000; ++i) {
    x.push_back(static_cast<float>(i) * 0.37F);
    y.push_back(static_cast<float>(i * i) * 0.11F);
    sum.push_back(x.back() + y.back());
  }
  const DeviceArray<float> a(x);
  const DeviceArray<float> b(y);
  must(add(a.get(), b.get(), 999, nullptr));
  sum.back() = x.back();  // past the end: untouched
  EXPECT_EQ(a.host(), sum);
}

}  // namespace
}  // namespace kvfs::model::cuda
