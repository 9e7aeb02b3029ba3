#include "engine/prune/budgets.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace kvfs::prune {
namespace {

using ::testing::ElementsAre;

TEST(Budgets, APyramidNarrowsFromBottomToTop) {
  Pyramid rule;
  rule.window = 16;
  rule.bottom = 96;
  rule.top = 32;
  EXPECT_THAT(budgets_of(rule, 3, 1000), ElementsAre(96, 64, 32));
}

TEST(Budgets, AShareIsOfWhatIsThere) {
  H2o rule;
  rule.keep = {0.25, true};
  EXPECT_THAT(budgets_of(rule, 2, 200), ElementsAre(50, 50));
  rule.keep = {70, false};
  EXPECT_THAT(budgets_of(rule, 2, 200), ElementsAre(70, 70));
}

TEST(Budgets, WhatIsDroppedIsTakenFromWhatIsThere) {
  EXPECT_THAT(budgets_of(Drop{.from = 10, .to = 30}, 1, 100), ElementsAre(80));
}

TEST(Budgets, OnlyMethodsWithTheWordHaveAWindowOrAnAmount) {
  SnapKv snapkv;
  snapkv.window = 7;
  EXPECT_EQ(kept_window_of(snapkv), 7);
  EXPECT_EQ(kept_window_of(Random{}), std::nullopt);

  Method method = Tova{};
  amount_of(method)->value = 5;
  EXPECT_EQ(std::get<Tova>(method).keep.value, 5);
  method = KeepLast{};
  EXPECT_EQ(amount_of(method), nullptr);
}

}  // namespace
}  // namespace kvfs::prune
