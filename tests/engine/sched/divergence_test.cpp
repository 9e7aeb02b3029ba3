#include "engine/sched/divergence.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace kvfs::sched {
namespace {

// Logits of these probabilities, shifted: softmax does not see it.
std::vector<float> logits(const std::vector<double>& probabilities, float shift = 0) {
  std::vector<float> out;
  for (const double p : probabilities) out.push_back(static_cast<float>(std::log(p)) + shift);
  return out;
}

TEST(Divergence, IsTheSumOfPTimesTheLogOfPOverQ) {
  const std::vector<double> p{0.5, 0.25, 0.125, 0.125}, q{0.25, 0.25, 0.25, 0.25};
  const double by_hand = 0.5 * std::log(2.0) + 0.25 * std::log(0.5);
  EXPECT_NEAR(divergence(logits(p), logits(q)), by_hand, 1e-7);
  EXPECT_NEAR(divergence(logits(p, 40), logits(q, -700)), by_hand, 1e-4);
  const double other_way = 0.25 * std::log(0.5) + 0.5 * std::log(2.0);
  EXPECT_NEAR(divergence(logits(q), logits(p)), other_way, 1e-7);
  const std::vector<double> r{0.7, 0.1, 0.1, 0.1};
  EXPECT_GT(std::abs(divergence(logits(p), logits(r)) - divergence(logits(r), logits(p))), 1e-3);
}

TEST(Divergence, OfTheSameLogitsIsZeroExactly) {
  std::vector<float> some;
  for (int i = 0; i < 1000; ++i) some.push_back(std::sin(static_cast<float>(i)) * 20);
  EXPECT_EQ(divergence(some, some), 0);
}

TEST(Divergence, SurvivesLogitsOfAnySize) {
  EXPECT_EQ(divergence(std::vector<float>{3e38F, -3e38F}, std::vector<float>{3e38F, -3e38F}), 0);
  EXPECT_NEAR(divergence(std::vector<float>{1000, 0}, std::vector<float>{0, 0}), std::log(2.0),
              1e-9);
}

TEST(Divergence, ATokensLogProbabilityIsThatOfItsSoftmax) {
  const auto some = logits({0.5, 0.3, 0.2}, 90);
  EXPECT_NEAR(log_probability(some, 0), std::log(0.5), 1e-5);
  EXPECT_NEAR(log_probability(some, 2), std::log(0.2), 1e-5);
}

}  // namespace
}  // namespace kvfs::sched
