#include "engine/model/sampling.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <map>
#include <random>
#include <set>

namespace kvfs::model {
namespace {

std::vector<float> random_logits(std::size_t n, unsigned seed = 3) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0.0F, 3.0F);
  std::vector<float> logits(n);
  for (float& x : logits) x = normal(generator);
  return logits;
}

std::map<TokenId, int> draws(const std::vector<float>& logits, const SamplingParams& params,
                             int count) {
  std::map<TokenId, int> counts;
  for (Position at = 0; at < count; ++at) ++counts[sample(logits, {}, params, at)];
  return counts;
}

TEST(Sampling, ZeroTemperatureTakesTheBestAndTiesGoToTheLowerId) {
  EXPECT_EQ(sample(std::vector<float>{1, 5, 3, 5}, {}, {.temperature = 0}, 0), 1);
}

TEST(Sampling, ADrawDependsOnSeedAndPositionAlone) {
  const std::vector<float> logits = random_logits(1000);
  std::set<TokenId> seen;
  for (Position at = 0; at < 50; ++at) {
    const TokenId id = sample(logits, {}, {.temperature = 1, .seed = 5}, at);
    EXPECT_EQ(id, sample(logits, {}, {.temperature = 1, .seed = 5}, at));
    seen.insert(id);
  }
  EXPECT_GT(seen.size(), 10U);
  int differ = 0;
  for (Position at = 0; at < 50; ++at) {
    differ += sample(logits, {}, {.temperature = 1, .seed = 6}, at) !=
                      sample(logits, {}, {.temperature = 1, .seed = 5}, at)
                  ? 1
                  : 0;
  }
  EXPECT_GT(differ, 25);
}

TEST(Sampling, DrawsFollowTheSoftmax) {
  const std::vector<float> logits{std::log(0.5F), std::log(0.3F), std::log(0.2F)};
  const auto counts = draws(logits, {.temperature = 1, .seed = 1}, 20000);
  EXPECT_NEAR(counts.at(0), 10000, 300);
  EXPECT_NEAR(counts.at(1), 6000, 300);
  EXPECT_NEAR(counts.at(2), 4000, 300);
  const auto cooler = draws(logits, {.temperature = 0.5F, .seed = 1}, 20000);  // 25 : 9 : 4
  EXPECT_NEAR(cooler.at(0), 20000 * 25 / 38, 300);
  EXPECT_NEAR(cooler.at(2), 20000 * 4 / 38, 300);
}

TEST(Sampling, TopKKeepsTheLikeliestK) {
  const std::vector<float> logits{0, 4, 1, 3, 3};
  for (const auto& [id, count] : draws(logits, {.temperature = 100, .top_k = 2}, 500)) {
    EXPECT_TRUE(id == 1 || id == 3) << id;  // of the tie, the lower id
  }
}

TEST(Sampling, TopPKeepsTheFewestThatReachP) {
  const std::vector<float> logits{std::log(0.5F), std::log(0.3F), std::log(0.15F), std::log(0.05F)};
  const auto kept = [&](float p) {
    return draws(logits, {.temperature = 1, .top_p = p}, 2000).size();
  };
  EXPECT_EQ(kept(0.01F), 1U);
  EXPECT_EQ(kept(0.49F), 1U);
  EXPECT_EQ(kept(0.6F), 2U);
  EXPECT_EQ(kept(0.9F), 3U);
  EXPECT_EQ(kept(1.0F), 4U);
}

TEST(Sampling, TopPOfAFlatVocabularyKeepsItsShare) {
  const std::vector<float> logits(1000, 0.0F);
  for (const auto& [id, count] : draws(logits, {.temperature = 1, .top_p = 0.25F}, 3000))
    EXPECT_LE(id, 250);
}

TEST(Sampling, MinPKeepsWhatIsNearTheBest) {
  const std::vector<float> logits{std::log(0.5F), std::log(0.3F), std::log(0.15F), std::log(0.05F)};
  EXPECT_EQ(draws(logits, {.temperature = 1, .min_p = 0.2F}, 2000).size(), 3U);
}

TEST(Sampling, RepeatPenaltyLooksAtTheLast64Tokens) {
  const std::vector<float> logits{2.0F, 1.5F, -1.0F};
  const SamplingParams params{.temperature = 0, .repeat_penalty = 2.0F};
  EXPECT_EQ(sample(logits, std::vector<TokenId>{0}, params, 0), 1);
  EXPECT_EQ(
      sample(logits, std::vector<TokenId>{0, 0, 0}, {.temperature = 0, .repeat_penalty = 1.2F}, 0),
      0);  // once, not thrice
  std::vector<TokenId> old(65, 2);
  old[0] = 0;
  EXPECT_EQ(sample(logits, old, params, 0), 0);
  EXPECT_EQ(sample(std::vector<float>{-1.0F, -1.5F}, std::vector<TokenId>{0}, params, 0),
            1);  // negative: away from zero
}

// Philox4x32-10 of key 0, counter 0 starts 6627e8d5 e169c58d (Random123's known answers): 53 bits
// of it, as a share, pick the 1,000-quantile 399.
TEST(Sampling, TheGeneratorIsPhilox) {
  const std::vector<float> flat(1000, 0.0F);
  EXPECT_EQ(sample(flat, {}, {.temperature = 1, .seed = 0}, 0),
            static_cast<TokenId>(1000.0 * 0x6627e8d5 / 4294967296.0));
}

TEST(Sampling, AVocabularyOf49152TakesUnderAMillisecondOrTwo) {
  const std::vector<float> logits = random_logits(49152);
  const SamplingParams params{.temperature = 0.8F,
                              .top_k = 0,
                              .top_p = 0.95F,
                              .min_p = 0.0F,
                              .repeat_penalty = 1.1F,
                              .seed = 1};
  const std::vector<TokenId> recent(64, 17);
  double fastest = 1;
  for (Position at = 0; at < 20; ++at) {
    const auto start = std::chrono::steady_clock::now();
    sample(logits, recent, params, at);
    fastest = std::min(
        fastest, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::printf("%.3f ms\n", fastest * 1e3);
  RecordProperty("milliseconds", std::to_string(fastest * 1e3));
  EXPECT_LT(fastest, 0.02);  // a slow machine may be slow, not hundreds of times so
}

}  // namespace
}  // namespace kvfs::model
