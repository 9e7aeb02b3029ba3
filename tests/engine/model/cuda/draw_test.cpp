// Tokens that the device draws are those that model/sampling.cpp draws on the host.
#include "engine/model/cuda/draw.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "engine/model/cuda/kernels.h"
#include "engine/model/sampling.h"
#include "tests/engine/model/cuda/device_array.h"

namespace kvfs::model::cuda {
namespace {

constexpr int kLastStep = (kDrawnSteps - 1) * kMaxBatch;  // of the ring

class CudaDraw : public testing::Test {
 protected:
  void SetUp() override {
    if (!has_gpu()) GTEST_SKIP() << "no NVIDIA GPU here";
  }

  // grain: logits are multiples of it, so that many are equal; 0: as they come.
  std::vector<float> logits(int vocab, float grain) {
    std::normal_distribution<float> normal(0.0F, 3.0F);
    std::vector<float> out(static_cast<std::size_t>(vocab));
    for (float& each : out) {
      each = normal(random_);
      if (grain > 0.0F) each = std::round(each / grain) * grain;
    }
    return out;
  }

  // Each row drawn by the device; the changed logits are left in `logits`.
  std::vector<TokenId> draw_all(std::vector<float>& logits, int vocab,
                                const std::vector<DrawRow>& rows,
                                const std::vector<LogitChange>& changes,
                                std::vector<std::int32_t> drawn) {
    drawn.resize(kDrawnSteps * kMaxBatch);
    const int count = static_cast<int>(rows.size());
    const DeviceArray<float> there(logits);
    const DeviceArray<DrawRow> draws(rows);
    const DeviceArray<LogitChange> change(changes.empty() ? std::vector<LogitChange>(1) : changes);
    const DeviceArray<std::int32_t> ring(drawn);
    const DeviceArray<std::int32_t> heard(drawn);
    const DeviceArray<RowPlace> places(std::vector<RowPlace>(rows.size(), {70, 3}));
    const DeviceArray<std::int32_t> tokens(rows.size());
    must(draw({there.get(), vocab, count, draws.get(), change.get(), places.get(), tokens.get(),
               ring.get(), heard.get()},
              nullptr));
    const auto kept = ring.host();
    EXPECT_EQ(heard.host(), kept);
    const auto next_draws = draws.host();
    const auto next_places = places.host();
    const auto next_tokens = tokens.host();
    std::vector<TokenId> out;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      out.push_back(kept[static_cast<std::size_t>(kLastStep) + i]);
      EXPECT_EQ(next_draws[i].drawn_at, static_cast<int>(i)) << "the ring begins anew";
      EXPECT_EQ(next_draws[i].position, rows[i].position + 1);
      EXPECT_EQ(next_places[i].position, 71);
      EXPECT_EQ(next_tokens[i], -1 - kLastStep - static_cast<int>(i));
    }
    logits = there.host();
    return out;
  }

  std::mt19937 random_{11};
};

DrawRow row_of(const SamplingParams& params, int position, int row = 0) {
  return {.seed = params.seed,
          .temperature = params.temperature,
          .top_k = params.top_k,
          .top_p = params.top_p,
          .min_p = params.min_p,
          .repeat_penalty = params.repeat_penalty,
          .presence_penalty = params.presence_penalty,
          .frequency_penalty = params.frequency_penalty,
          .position = position,
          .drawn_at = kLastStep + row,
          .changes_begin = 0,
          .changes_end = 0,
          .unheard = 0,
          .unheard_at = {}};
}

TEST_F(CudaDraw, DrawsWhatTheHostDraws) {
  const std::vector<SamplingParams> settings{
      {.temperature = 0},
      {.temperature = 1, .seed = 1},
      {.temperature = 0.8F, .top_p = 0.95F, .seed = 2},
      {.temperature = 0.7F, .top_k = 40, .seed = 3},
      {.temperature = 1.3F, .top_k = 50, .top_p = 0.9F, .min_p = 0.02F, .seed = 4},
      {.temperature = 1, .min_p = 0.1F, .seed = 5},
      {.temperature = 2, .top_p = 0.01F, .seed = 6},
      {.temperature = 5, .top_k = 1, .seed = 7},
      {.temperature = 1e-6F, .seed = 8},
      {.temperature = 100, .top_k = 30000, .top_p = 0.99F, .seed = 9}};
  for (const int vocab : {31, 260, 1000, 49152, 128256}) {
    for (const float grain : {0.0F, 0.5F}) {  // of the latter many are the likeliest, and the last
      std::vector<DrawRow> rows;
      std::vector<float> all;
      std::vector<TokenId> expected;
      const auto one = logits(vocab, grain);
      for (const SamplingParams& params : settings) {
        const int row = static_cast<int>(rows.size());
        rows.push_back(row_of(params, 7 * row + vocab, row));
        all.insert(all.end(), one.begin(), one.end());
        expected.push_back(sample(one, {}, params, rows.back().position));
      }
      EXPECT_EQ(draw_all(all, vocab, rows, {}, {}), expected) << vocab << ", grain " << grain;
    }
  }
}

TEST_F(CudaDraw, AThousandDrawsAreTheHosts) {
  constexpr int kVocab = 5000;
  const auto one = logits(kVocab, 0.25F);
  for (const SamplingParams& params :
       {SamplingParams{.temperature = 1, .seed = 21},
        SamplingParams{.temperature = 1, .top_k = 77, .top_p = 0.8F, .seed = 22}}) {
    for (int first = 0; first < 1000; first += kMaxBatch) {
      std::vector<DrawRow> rows;
      std::vector<float> all;
      std::vector<TokenId> expected;
      for (int i = 0; i < kMaxBatch; ++i) {
        rows.push_back(row_of(params, first + i, i));
        all.insert(all.end(), one.begin(), one.end());
        expected.push_back(sample(one, {}, params, first + i));
      }
      ASSERT_EQ(draw_all(all, kVocab, rows, {}, {}), expected) << first;
    }
  }
}

// 9 is biased, 5 was said twice, 7 was drawn twice and 5 once more by steps nobody has heard of.
TEST_F(CudaDraw, BiasAndPenaltiesChangeTheLogitsAsOnTheHost) {
  constexpr int kVocab = 1000;
  const SamplingParams params{.temperature = 1,
                              .top_p = 0.9F,
                              .repeat_penalty = 1.3F,
                              .presence_penalty = 0.4F,
                              .frequency_penalty = 0.3F,
                              .logit_bias = {{9, 4.5F}},
                              .seed = 3};
  DrawRow row = row_of(params, 50);
  row.changes_end = 2;
  row.unheard = 3;
  std::vector<std::int32_t> drawn(kDrawnSteps * kMaxBatch, -1);
  const int places[] = {0, kMaxBatch + 3, 2 * kMaxBatch + 15};
  const int tokens[] = {7, 5, 7};
  for (int i = 0; i < 3; ++i) {
    row.unheard_at[i] = places[i];
    drawn[static_cast<std::size_t>(places[i])] = tokens[i];
  }
  const std::vector<LogitChange> changes{{9, 4.5F, 0, 0}, {5, 0.0F, 2, 1}};
  const std::vector<TokenId> history{5, 5, 7, 5, 7};
  for (int i = 0; i < 200; ++i) {
    row.position = i;
    auto own = logits(kVocab, 0.0F);
    own[5] = own[7] = own[9] = 9.0F;  // among those that are drawn
    const TokenId expected = sample(own, {history, history.size()}, params, i);
    ASSERT_EQ(draw_all(own, kVocab, {row}, changes, drawn), std::vector<TokenId>{expected}) << i;
  }
}

}  // namespace
}  // namespace kvfs::model::cuda
