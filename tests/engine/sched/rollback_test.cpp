// Going back, and on from there: as if what was left had never been.
#include "engine/sched/rollback.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>

#include "engine/sched/verbs.h"
#include "tests/engine/sched/house.h"

namespace kvfs::sched::test {
namespace {

using ::testing::HasSubstr;

Status back(House& house, StateId state, std::uint64_t n_tokens) {
  return rollback(house.store(), house.scheduler(), house.catalog(), state, n_tokens);
}

StateId snapshot(House& house, StateId state, const std::string& name) {
  std::promise<Result<StateId>> made;
  take_snapshot(house.store(), state, name,
                [&](Result<StateId> id) { made.set_value(std::move(id)); });
  return made.get_future().get().value();
}

void expect_sound(House& house) {
  const auto report = house.store().verify();
  ASSERT_TRUE(report);
  EXPECT_THAT(report->problems, ::testing::IsEmpty());
}

TEST(Rollback, AStateThatWentBackIsTheOneThatNeverWentOn) {
  FakeControls controls;
  House house(controls);
  for (const std::size_t tokens : {1U, 100U, 255U, 256U, 257U, 512U, 600U}) {
    const std::string text = long_text(700);
    const StateId whole = house.make("w" + std::to_string(tokens));
    const StateId part = house.make("p" + std::to_string(tokens));
    house.feed(whole, text);
    house.feed(part, text.substr(0, tokens));
    const Status went = back(house, whole, tokens);
    ASSERT_TRUE(went) << tokens << ": " << went.error().message();
    EXPECT_EQ(house.files(whole), house.files(part)) << tokens;
    house.feed(whole, " and on");
    house.feed(part, " and on");
    EXPECT_EQ(house.files(whole), house.files(part)) << tokens;
  }
  expect_sound(house);
}

// The cut block's key is the one it would have had: what was read after it is known again.
TEST(Rollback, WhatIsReadAgainIsFoundByPrefix) {
  FakeControls controls;
  House house(controls);
  const std::string text = long_text(700);
  const StateId state = house.make("s");
  house.feed(state, text);
  ASSERT_TRUE(back(house, state, 300));
  const auto before = house.scheduler().counters().prefix_hit_tokens;
  house.feed(state, text.substr(300));
  EXPECT_GT(house.scheduler().counters().prefix_hit_tokens, before);
  EXPECT_EQ(house.text(state), text);
}

TEST(Rollback, ToNothingAndToASnapshot) {
  FakeControls controls;
  House house(controls);
  const StateId state = house.make("s");
  house.feed(state, "first");
  const auto first = house.files(state);
  const StateId kept = snapshot(house, state, "v1");
  house.feed(state, " second");
  ASSERT_TRUE(back(house, state, 0));
  EXPECT_FALSE(house.store().state(state)->version);
  ASSERT_TRUE(rollback_to(house.store(), house.scheduler(), state, "v1"));
  EXPECT_EQ(house.files(state), first);
  EXPECT_EQ(*resolve(house.store(), "s@v1"), kept);
  EXPECT_EQ(*path_of(house.store(), kept), "s@v1");
  expect_sound(house);
}

TEST(Rollback, WhatCannotBeIsRefusedInWords) {
  FakeControls controls;
  House house(controls);
  const StateId state = house.make("s");
  house.feed(state, "12345");
  EXPECT_THAT(back(house, state, 6).error().message(), HasSubstr("the state has 5 tokens"));
  const StateId kept = snapshot(house, state, "v1");
  EXPECT_EQ(back(house, kept, 1).error().code, ErrorCode::kPermission);
  EXPECT_EQ(house.scheduler().check(house.submission(kept, store::JobKind::kAsk, "x")).error().code,
            ErrorCode::kPermission);
  EXPECT_EQ(rollback_to(house.store(), house.scheduler(), state, "v2").error().code,
            ErrorCode::kNotFound);
}

}  // namespace
}  // namespace kvfs::sched::test
