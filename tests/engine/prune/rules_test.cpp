#include "engine/prune/rules.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "engine/prune/choose.h"
#include "engine/prune/scores.h"

namespace kvfs::prune {
namespace {

std::vector<Position> positions(std::size_t count, Position first = 0) {
  std::vector<Position> out(count);
  std::iota(out.begin(), out.end(), first);
  return out;
}

Kept must(const Method& method, const Observation& observation) {
  const auto kept = choose(method, observation);
  EXPECT_TRUE(kept) << (kept ? "" : kept.error().message());
  return kept ? *kept : Kept{};
}

std::string refusal(const Method& method, const Observation& observation) {
  const auto kept = choose(method, observation);
  return kept ? "kept" : kept.error().message();
}

TEST(Highest, TiesGoToTheLowerIndexAndNaNIsLast) {
  const float none = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(highest(std::vector<float>{1, 2, 2, 2, 3}, 3), (KeptEntries{1, 2, 4}));
  EXPECT_EQ(highest(std::vector<float>{none, 0, none, -1}, 2), (KeptEntries{1, 3}));
  EXPECT_EQ(highest(std::vector<float>{none, none}, 1), (KeptEntries{0}));
  EXPECT_EQ(highest(std::vector<float>{5, 4}, 9), (KeptEntries{0, 1}));
}

TEST(Pooled, BordersCountAsZeroInAMeanAndNotAtAllInAMaximum) {
  const std::vector<float> scores = {-3, -6, -9, -3};
  EXPECT_EQ(pooled(scores, 3, Pooling::kAverage), (std::vector<float>{-3, -6, -6, -4}));
  EXPECT_EQ(pooled(scores, 3, Pooling::kLargest), (std::vector<float>{-3, -3, -3, -3}));
  EXPECT_EQ(pooled(scores, 1, Pooling::kLargest), scores);
}

TEST(Amounts, OneAtLeastAndAllAtMost) {
  EXPECT_EQ((Amount{0.25, true}.of(13)), 3);
  EXPECT_EQ((Amount{0.01, true}.of(13)), 1);
  EXPECT_EQ((Amount{500, false}.of(13)), 13);
}

TEST(PyramidBudget, FallsToTheTopIsRoundedToEvenAndNeverBelowTheWindow) {
  const Pyramid rule{.window = 160, .bottom = 640, .top = 128};
  EXPECT_EQ(budget_of(rule, {0, 30}), 640);
  EXPECT_EQ(budget_of(rule, {29, 30}), 160);
  EXPECT_EQ(budget_of(rule, {0, 1}), 640);
  const Pyramid half{.window = 1, .bottom = 5, .top = 2};
  EXPECT_EQ(budget_of(half, {1, 3}), 4);  // 3.5
  const Pyramid low{.window = 1, .bottom = 4, .top = 1};
  EXPECT_EQ(budget_of(low, {1, 3}), 2);  // 2.5
}

TEST(Random, TheSeedDecidesAndHeadsDiffer) {
  const Observation cache(2, {.positions = {positions(100), positions(100)}});
  const Kept kept = must(Random{{{10, false}}, 7}, cache);
  EXPECT_EQ(kept, must(Random{{{10, false}}, 7}, cache));
  EXPECT_NE(kept, must(Random{{{10, false}}, 8}, cache));
  EXPECT_NE(kept[0][0], kept[0][1]);
  EXPECT_NE(kept[0][0], kept[1][0]);
  EXPECT_EQ(kept[1][1].size(), 10U);
}

TEST(Drop, GoesByPositionNotByEntry) {
  const Observation cache(1, {.positions = {{0, 5, 9, 10, 30}, {9, 10, 11}}});
  EXPECT_EQ(must(Drop{9, 11}, cache), (Kept{{{0, 1, 4}, {2}}}));
  EXPECT_NE(refusal(Drop{0, 12}, cache).find("nothing of some head"), std::string::npos);
}

TEST(RaggedHeads, AreChosenFromHeadByHead) {
  const Observation cache(1, {.positions = {positions(6), positions(3, 10)},
                              .scores = {{6, 5, 4, 3, 2, 1}, {3, 2, 1}}});
  EXPECT_EQ(must(Knorm{{{2, false}}}, cache), (Kept{{{4, 5}, {1, 2}}}));
  EXPECT_EQ(must(KeepLast{.n = 4, .sinks = 1}, cache), (Kept{{{0, 2, 3, 4, 5}, {0, 1, 2}}}));
  EXPECT_NE(refusal(Tova{}, cache).find("different positions"), std::string::npos);
  EXPECT_NE(refusal(Pyramid{}, cache).find("different positions"), std::string::npos);
}

TEST(AdaKv, AHeadThatNothingLooksAtKeepsItsWindowAndLeavesItsShareToOthers) {
  Observation cache(1, {.positions = {positions(40), positions(6)}, .scores = {{}, {}}});
  for (int i = 0; i < 40; ++i) cache[0].scores[0].push_back(static_cast<float>(i % 7));
  cache[0].scores[1].assign(6, 0.0F);
  AdaKv rule;
  rule.capacity = 10;
  rule.window = 2;
  const Kept kept = must(rule, cache);
  EXPECT_EQ(kept[0][1], (KeptEntries{4, 5}));
  EXPECT_EQ(kept[0][0].size(), 14U);  // a head of six had six to give
}

TEST(KvZip, WhatWouldLeaveAHeadEmptyIsRefused) {
  const Observation cache(1, {.positions = {positions(8), positions(8)},
                              .scores = HeadScores(2, std::vector<float>(8))});
  EXPECT_NE(refusal(KvZip{{{4, false}}}, cache).find("nothing of some head"), std::string::npos);
  EXPECT_EQ(must(KvZip{{{8, false}}}, cache), (Kept{{{0, 1, 2, 3}, {0, 1, 2, 3}}}));
}

TEST(Choose, AnObservationThatIsNotWhatTheMethodNeedsIsABug) {
  const Observation cache(1, {.positions = {positions(8)}, .scores = {std::vector<float>(7)}});
  EXPECT_EQ(choose(Knorm{}, cache).error().code, ErrorCode::kInternal);
  EXPECT_EQ(choose(Expected{}, {{.positions = {positions(1)}, .scores = {{1.0F}}}}).error().code,
            ErrorCode::kInternal);
  EXPECT_EQ(choose(KeepLast{}, {{.positions = {{}}}}).error().code, ErrorCode::kInvalid);
}

TEST(Needs, EveryMethodSaysWhatItWants) {
  EXPECT_EQ(needs_of(SnapKv{}), Needs::kWindowQueries);
  EXPECT_EQ(window_of(AdaKv{}), 64);
  EXPECT_EQ(window_of(Tova{}), 1);
  EXPECT_TRUE(reads_the_text(KvZip{}) && reads_the_text(Expected{}) && reads_the_text(H2o{}));
  EXPECT_FALSE(reads_the_text(SnapKv{}) || reads_the_text(KeepLast{}));
}

}  // namespace
}  // namespace kvfs::prune
