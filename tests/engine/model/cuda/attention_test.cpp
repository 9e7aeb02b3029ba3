// Attention against plain double-precision code, and what it must not depend on.
#include <limits>

#include "tests/engine/model/cuda/kernel_fixture.h"

namespace kvfs::model::cuda {
namespace {

template <class T>
class CudaAttention : public CudaKernels<T> {};
TYPED_TEST_SUITE(CudaAttention, KvTypes, KernelTypeNames);

// Attention inputs: rows of queries and the pages they look at.
template <class T>
struct Scene {
  HeadShape shape;
  std::vector<RowPlace> places;
  std::vector<float> qkv;                // [rows][(heads + 2·kv_heads)·width]
  std::vector<std::vector<T>> contents;  // of all pages
  float cap = 0.0F;
  int window = 0;

  int qkv_width() const { return (shape.heads + 2 * shape.kv_heads) * shape.width; }

  template <class Out = T>
  std::vector<Out> attend(const Pages<T>& pages, int first, int rows) const {
    int most_pages = 0;
    for (int r = first; r < first + rows; ++r) {
      most_pages = std::max(most_pages, places[static_cast<std::size_t>(r)].position / kPage + 1);
    }
    const DeviceArray<float> in(qkv);
    const DeviceArray<RowPlace> where(places);
    const DeviceArray<float> partial(attention_scratch(rows, most_pages, shape));
    const DeviceArray<Out> out(static_cast<std::size_t>(rows * shape.heads * shape.width));
    const AttentionRule rule{1.0F / std::sqrt(static_cast<float>(shape.width)), cap, window};
    must(attention(in.get() + first * qkv_width(), where.get() + first, rows, most_pages, shape,
                   rule, pages.place(), partial.get(), out.get(), nullptr));
    return out.host();
  }

  std::vector<double> expected() const {
    std::vector<double> out;
    for (std::size_t r = 0; r < places.size(); ++r) {
      for (int head = 0; head < shape.heads; ++head) append_head(r, head, out);
    }
    return out;
  }

 private:
  double cell(std::size_t row, int side, int kv_head, int position, int i) const {
    const auto& page =
        contents[static_cast<std::size_t>(places[row].first_page + position / kPage)];
    return number(page[static_cast<std::size_t>(
        ((side * shape.kv_heads + kv_head) * kPage + position % kPage) * shape.width + i)]);
  }
  void append_head(std::size_t row, int head, std::vector<double>& out) const {
    const float* query = qkv.data() + static_cast<int>(row) * qkv_width() + head * shape.width;
    const int kv_head = head / (shape.heads / shape.kv_heads);
    std::vector<double> weights;
    const int begin = window == 0 ? 0 : std::max(0, places[row].position - window + 1);
    for (int j = begin; j <= places[row].position; ++j) {
      double score = 0.0;
      for (int i = 0; i < shape.width; ++i) score += query[i] * cell(row, 0, kv_head, j, i);
      score /= std::sqrt(static_cast<double>(shape.width));
      weights.push_back(cap == 0.0F ? score : cap * std::tanh(score / cap));
    }
    const double most = *std::max_element(weights.begin(), weights.end());
    double sum = 0.0;
    for (double& weight : weights) sum += weight = std::exp(weight - most);
    for (int i = 0; i < shape.width; ++i) {
      double value = 0.0;
      for (int j = begin; j <= places[row].position; ++j) {
        value += weights[static_cast<std::size_t>(j - begin)] / sum * cell(row, 1, kv_head, j, i);
      }
      out.push_back(value);
    }
  }
};

template <class T, class Make>
Scene<T> scene(HeadShape shape, std::vector<RowPlace> places, int pages, const Make& normal) {
  Scene<T> out{.shape = shape, .places = std::move(places), .qkv = {}, .contents = {}};
  out.qkv = normal.template operator()<float>(out.places.size() *
                                              static_cast<std::size_t>(out.qkv_width()));
  for (int i = 0; i < pages; ++i) {
    out.contents.push_back(normal.template operator()<T>(
        static_cast<std::size_t>(2 * shape.kv_heads * kPage * shape.width)));
  }
  return out;
}

constexpr HeadShape kShapes[] = {{9, 3, 64}, {4, 4, 64}, {16, 2, 128}, {4, 2, 8}, {2, 1, 256}};

TYPED_TEST(CudaAttention, GeneratingAttendsToEverythingBefore) {
  const auto normal = [this]<class E>(std::size_t count) {
    return this->template normal<E>(count);
  };
  for (const HeadShape shape : kShapes) {
    // Sequences of 1, 3, 2 and 1 pages.
    const auto s = scene<TypeParam>(shape, {{0, 0}, {700, 1}, {511, 4}, {255, 6}}, 7, normal);
    const Pages<TypeParam> pages(shape, s.contents, this->random_);
    const auto together = s.attend(pages, 0, 4);
    this->expect_close(together, s.expected());

    const Pages<TypeParam> elsewhere(shape, s.contents, this->random_);
    EXPECT_TRUE(same_bits(together, s.attend(elsewhere, 0, 4))) << "depends on the pages' places";
    for (int row = 0; row < 4; ++row) {
      const auto width = shape.heads * shape.width;
      const std::vector<TypeParam> mine(together.begin() + row * width,
                                        together.begin() + (row + 1) * width);
      EXPECT_TRUE(same_bits(mine, s.attend(pages, row, 1))) << "depends on its company";
    }
  }
}

TYPED_TEST(CudaAttention, ReadingAttendsToEverythingBefore) {
  const auto normal = [this]<class E>(std::size_t count) {
    return this->template normal<E>(count);
  };
  for (const HeadShape shape : kShapes) {
    std::vector<RowPlace> places;
    for (int position = 490; position < 530; ++position) places.push_back({position, 0});
    const auto s = scene<TypeParam>(shape, places, 3, normal);
    const Pages<TypeParam> pages(shape, s.contents, this->random_);
    const auto whole = s.attend(pages, 0, 40);
    this->expect_close(whole, s.expected());
    auto cut = s.attend(pages, 0, 13);
    const auto rest = s.attend(pages, 13, 27);
    cut.insert(cut.end(), rest.begin(), rest.end());
    EXPECT_TRUE(same_bits(whole, cut)) << "depends on where the text was cut";
  }
}

class CudaAttentionOfFp16 : public CudaKernels<__nv_bfloat16> {};

TEST_F(CudaAttentionOfFp16, LooksAtBf16AndLosesLessOfWhatItGives) {
  const auto normal = [this]<class E>(std::size_t count) { return this->normal<E>(count); };
  const auto s = scene<__nv_bfloat16>({9, 3, 64}, {{0, 0}, {700, 1}, {511, 4}}, 6, normal);
  const Pages<__nv_bfloat16> pages(s.shape, s.contents, random_);
  expect_close(s.attend<__half>(pages, 0, 3), s.expected());
}

TYPED_TEST(CudaAttention, AWindowAndACapHold) {
  const auto normal = [this]<class E>(std::size_t count) {
    return this->template normal<E>(count);
  };
  auto s = scene<TypeParam>({4, 2, 64}, {{5, 0}, {300, 0}, {700, 0}}, 3, normal);
  s.window = 200;
  s.cap = 1.5F;
  const Pages<TypeParam> pages(s.shape, s.contents, this->random_);
  this->expect_close(s.attend(pages, 0, 3), s.expected());
}

TYPED_TEST(CudaAttention, WhatComesLaterIsNeverSeen) {
  const auto normal = [this]<class E>(std::size_t count) {
    return this->template normal<E>(count);
  };
  for (const HeadShape shape : kShapes) {
    std::vector<RowPlace> places;
    for (int position = 10; position < 50; ++position) places.push_back({position, 0});
    auto s = scene<TypeParam>(shape, places, 1, normal);
    const Pages<TypeParam> clean(shape, s.contents, this->random_);
    auto early = s.attend(clean, 0, 20);
    for (int side_head = 0; side_head < 2 * shape.kv_heads; ++side_head) {
      for (int position = 30; position < kPage; ++position) {
        for (int i = 0; i < shape.width; ++i) {
          s.contents[0]
                    [static_cast<std::size_t>((side_head * kPage + position) * shape.width + i)] =
              rounded<TypeParam>(position < 50 ? std::numeric_limits<float>::infinity()
                                               : std::numeric_limits<float>::quiet_NaN());
        }
      }
    }
    const Pages<TypeParam> poisoned(shape, s.contents, this->random_);
    auto all = s.attend(poisoned, 0, 40);
    all.resize(early.size());
    EXPECT_TRUE(same_bits(early, all));
  }
}

}  // namespace
}  // namespace kvfs::model::cuda
