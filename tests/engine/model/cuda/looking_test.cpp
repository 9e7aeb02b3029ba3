// What pruning asks beside attention, against plain double-precision code: heads whose width is no
// multiple of a tile, and turns of a part of it. Whole models: observed_test and compact_test with
// KVFS_DEVICE=cuda.
#include "engine/model/cuda/looking.h"

#include "tests/engine/model/cuda/kernel_fixture.h"

namespace kvfs::model::cuda {
namespace {

template <class T>
class CudaLooking : public CudaKernels<T> {};
TYPED_TEST_SUITE(CudaLooking, KvTypes, KernelTypeNames);

constexpr HeadShape kShape{.heads = 4, .kv_heads = 2, .width = 80};
constexpr int kRow = (kShape.heads + 2 * kShape.kv_heads) * kShape.width;

double at(const std::vector<float>& rows, int row, int head, int d) {
  return static_cast<double>(rows[static_cast<std::size_t>(row * kRow + head * kShape.width + d)]);
}

TYPED_TEST(CudaLooking, ExponentsAreThoseOfTheQueriesMeanAndCovariance) {
  using T = TypeParam;
  const int rows = this->between(70, 300);
  const int w = kShape.width;
  std::vector<float> qkv = this->template normal<float>(static_cast<std::size_t>(rows * kRow));
  for (float& x : qkv) x += 3.0F;  // a mean that could drown what lies about it
  Pages<T> pages(kShape, {this->normal(2 * 2 * kPage * w), this->normal(2 * 2 * kPage * w)},
                 this->random_);
  const DeviceArray<float> device(qkv);
  const DeviceArray<float> origin(std::vector<float>(kShape.heads * w));
  const DeviceArray<double> first(std::vector<double>(kShape.heads * w));
  const DeviceArray<double> second(std::vector<double>(kShape.heads * w * w));
  const QuerySums sums{origin.get(), first.get(), second.get()};
  const int some = rows / 3;
  must(add_queries(device.get(), some, kShape, true, sums, nullptr));
  must(add_queries(device.get() + some * kRow, rows - some, kShape, false, sums, nullptr));

  const std::vector<float> frequencies{1.0F, 0.1F, 0.003F};  // of 80 dimensions six turn
  const DeviceArray<float> turning(frequencies);
  const DeviceArray<float> matrix(static_cast<std::size_t>(kShape.heads * w * w));
  const DeviceArray<float> vector(static_cast<std::size_t>(kShape.heads * w));
  const DeviceArray<double> turns(static_cast<std::size_t>(w));
  const ExpectedQueries queries{matrix.get(), vector.get(), turns.get()};
  constexpr float kScale = 0.11F;
  constexpr int kNext = 1000;
  must(expect_queries(sums, rows, kShape, kScale, {turning.get(), 3}, kNext, queries, nullptr));
  const DeviceArray<float> out(static_cast<std::size_t>(2 * kShape.heads * kPage));
  must(expected_exponents<T>(queries, 2, kShape, pages.place(), out.get(), nullptr));

  const auto turned = [&](std::vector<double> x, double position) {
    for (int i = 0; i < 3; ++i) {
      const double angle = position * static_cast<double>(frequencies[static_cast<std::size_t>(i)]);
      double& a = x[static_cast<std::size_t>(i)];
      double& b = x[static_cast<std::size_t>(i + 3)];
      const double old = a;
      a = old * std::cos(angle) - b * std::sin(angle);
      b = b * std::cos(angle) + old * std::sin(angle);
    }
    return x;
  };
  // The average turn is linear: of a query, the average of what its turns would be.
  std::vector<double> expected;
  std::vector<std::vector<T>> contents{pages.page(0), pages.page(1)};
  for (int page = 0; page < 2; ++page) {
    for (int head = 0; head < kShape.heads; ++head) {
      std::vector<std::vector<double>> seen;  // each row's query, turned on the average
      for (int row = 0; row < rows; ++row) {
        std::vector<double> query(static_cast<std::size_t>(w));
        for (int d = 0; d < w; ++d) query[static_cast<std::size_t>(d)] = at(qkv, row, head, d);
        std::vector<double>& mean = seen.emplace_back(query);
        for (std::size_t d = 0; d < 6; ++d) mean[d] = 0;
        for (int pos = kNext; pos < kNext + 512; ++pos) {
          const auto there = turned({query.begin(), query.begin() + 6}, pos);
          for (std::size_t d = 0; d < 6; ++d) mean[d] += there[d] / 512;
        }
      }
      for (int slot = 0; slot < kPage; ++slot) {
        const auto key =
            (static_cast<std::size_t>(head / 2) * kPage + static_cast<std::size_t>(slot)) *
            static_cast<std::size_t>(w);
        double sum = 0, squares = 0;
        for (const auto& query : seen) {
          double score = 0;
          for (std::size_t d = 0; d < query.size(); ++d)
            score += query[d] * number(contents[static_cast<std::size_t>(page)][key + d]);
          sum += score * kScale;
          squares += score * kScale * score * kScale;
        }
        const double mean = sum / rows;
        expected.push_back(mean + (squares / rows - mean * mean) / 2);
      }
    }
  }
  this->expect_close(out.host(), expected, 1e-5);
}

TYPED_TEST(CudaLooking, NormsAreThoseOfKeysOrValues) {
  using T = TypeParam;
  const int w = kShape.width;
  Pages<T> pages(kShape, {this->normal(2 * 2 * kPage * w)}, this->random_);
  const std::vector<T> content = pages.page(0);
  for (const bool of_values : {false, true}) {
    const DeviceArray<float> out(static_cast<std::size_t>(kShape.kv_heads * kPage));
    must(entry_norms<T>(of_values, 1, kShape, pages.place(), out.get(), nullptr));
    std::vector<double> expected;
    const std::size_t begin = of_values ? content.size() / 2 : 0;
    for (std::size_t entry = 0; entry < 2 * kPage; ++entry) {
      double sum = 0;
      for (std::size_t d = 0; d < 80; ++d) {
        const double x = number(content[begin + entry * 80 + d]);
        sum += x * x;
      }
      expected.push_back(std::sqrt(sum));
    }
    this->expect_close(out.host(), expected, 1e-7);
  }
}

TYPED_TEST(CudaLooking, KeysTurnToTheirNewPositionsAndValuesKeepTheirBits) {
  using T = TypeParam;
  const std::vector<T> keys = this->normal(5 * 80);
  const std::vector<T> values = this->normal(5 * 80);
  const DeviceArray<T> from_keys(keys), from_values(values), to_keys(keys.size()),
      to_values(values.size());
  const std::vector<std::uint8_t> slots{3, 7, 8, 100, 255};
  const DeviceArray<std::uint8_t> where(slots);
  const std::vector<float> frequencies{1.0F, 0.1F};
  const std::vector<float> late{0.7F, 0.05F};
  const DeviceArray<float> early_of(frequencies), late_of(late);
  const Turning turning{early_of.get(), 2, late_of.get(), 300, 1.2F};
  const EntryRun run{
      from_keys.get(), from_values.get(), where.get(), to_keys.get(), to_values.get(), 256, 259, 5};
  const DeviceArray<EntryRun> runs(std::vector<EntryRun>{run});
  must(move_entries<T>(runs.get(), 1, turning, 80, nullptr));
  EXPECT_TRUE(same_bits(to_values.host(), values));
  const auto angle = [&](int position, std::size_t pair) {
    return position * static_cast<double>(position < 300 ? frequencies[pair] : late[pair]);
  };
  std::vector<double> expected;
  for (std::size_t i = 0; i < 5; ++i) {
    std::vector<double> key;
    for (std::size_t d = 0; d < 80; ++d) key.push_back(number(keys[i * 80 + d]));
    for (std::size_t pair = 0; pair < 2; ++pair) {
      const double by = angle(259 + static_cast<int>(i), pair) - angle(256 + slots[i], pair);
      const double a = key[pair], b = key[pair + 2];
      key[pair] = a * std::cos(by) - b * std::sin(by);
      key[pair + 2] = b * std::cos(by) + a * std::sin(by);
    }
    expected.insert(expected.end(), key.begin(), key.end());
  }
  const std::vector<T> moved = to_keys.host();
  this->expect_close(moved, expected);
  EXPECT_TRUE(same_bits(std::vector<T>(moved.begin(), moved.begin() + 80),
                        std::vector<T>(keys.begin(), keys.begin() + 80)))
      << "what stays where it is keeps its bits";
}

}  // namespace
}  // namespace kvfs::model::cuda
