// What has to be read again, and what it costs.
#include "engine/prune/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

namespace kvfs::prune {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<TokenId> text(int count) {
  std::vector<TokenId> ids(static_cast<std::size_t>(count));
  std::iota(ids.begin(), ids.end(), 100);
  return ids;
}
const Repetition kHow{.ask = {1, 2, 3}, .ask_on = {4, 5}, .answer = {6}};

Method by_window(int window) {
  SnapKv method;
  method.window = window;
  return method;
}

TEST(Plan, WhatLooksAtKeysOrPositionsAloneReadsNothing) {
  for (const Method& method : {Method(KeepLast{}), Method(Knorm{}), Method(Random{})}) {
    const auto plan = make_plan(method, std::vector<TokenId>(5, -1), 8192, {});
    ASSERT_TRUE(plan);
    EXPECT_EQ(plan->tokens(), 0);
  }
}

TEST(Plan, TheLastTokensAreReadWhereTheyStood) {
  const auto plan = make_plan(by_window(4), text(10), 8192, {});
  ASSERT_TRUE(plan);
  ASSERT_EQ(plan->passes.size(), 1U);
  EXPECT_EQ(plan->passes[0].first, 6);
  EXPECT_THAT(plan->passes[0].tokens, ElementsAre(106, 107, 108, 109));
  EXPECT_EQ(make_plan(by_window(40), text(10), 8192, {})->tokens(), 10);
  EXPECT_EQ(make_plan(Tova{}, text(10), 8192, {})->tokens(), 1);
}

TEST(Plan, TheWholeTextIsReadFromItsBeginning) {
  for (const Method& method : {Method(H2o{}), Method(Expected{})}) {
    const auto plan = make_plan(method, text(10), 10, {});
    ASSERT_TRUE(plan);
    ASSERT_EQ(plan->passes.size(), 1U);
    EXPECT_EQ(plan->passes[0].first, 0);
    EXPECT_EQ(plan->passes[0].tokens, text(10));
  }
}

TEST(Plan, EachPieceIsAskedForAndRepeatedBehindTheText) {
  const auto plan = make_plan(KvZip{}, text(5000), 8192, kHow);
  ASSERT_TRUE(plan);
  ASSERT_EQ(plan->passes.size(), 3U);
  EXPECT_EQ(plan->tokens(), 5000 + 4 + 2 * (2 + 8 + 1));
  for (const Pass& pass : plan->passes) EXPECT_EQ(pass.first, 5000);
  const Pass& second = plan->passes[1];
  EXPECT_EQ(second.begin, 2048);
  EXPECT_EQ(second.end, 4096);
  EXPECT_THAT(std::vector(second.tokens.begin(), second.tokens.begin() + 12),
              ElementsAre(4, 5, 2140, 2141, 2142, 2143, 2144, 2145, 2146, 2147, 6, 2148));
  EXPECT_EQ(plan->passes[2].end, 5000);
}

TEST(Plan, PiecesAreAsShortAsTheContextWants) {
  const auto plan = make_plan(KvZip{}, text(1000), 1000 + 11 + 100, kHow);
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->passes.size(), 10U);
  for (const Pass& pass : plan->passes) {
    EXPECT_EQ(pass.end - pass.begin, 100);
    EXPECT_LE(pass.first + static_cast<Position>(pass.tokens.size()), 1111);
  }
  const auto full = make_plan(KvZip{}, text(1000), 1020, kHow);
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().code, ErrorCode::kTooLarge);
  EXPECT_THAT(full.error().message(), HasSubstr("expected"));
}

TEST(Plan, UnknownTokensAreRefusedWhereTheyHaveToBeReadAndOnlyThere) {
  std::vector<TokenId> ids = text(100);
  ids[50] = -1;
  EXPECT_TRUE(make_plan(by_window(49), ids, 8192, kHow));
  for (const Method& method : {by_window(50), Method(H2o{}), Method(Expected{}), Method(KvZip{})}) {
    const auto plan = make_plan(method, ids, 8192, kHow);
    ASSERT_FALSE(plan);
    EXPECT_EQ(plan.error().code, ErrorCode::kInvalid);
    EXPECT_FALSE(plan.error().way_out.empty());
  }
}

TEST(Plan, NothingToPruneIsRefused) {
  EXPECT_EQ(make_plan(KeepLast{}, {}, 8192, {}).error().code, ErrorCode::kInvalid);
}

}  // namespace
}  // namespace kvfs::prune
