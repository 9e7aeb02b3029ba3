// What the scheduler refuses: in one sentence, with a way out, and nothing lost.
#include "engine/sched/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/engine/sched/house.h"

namespace kvfs::sched::test {
namespace {

using store::JobKind;
using store::JobStatus;
using ::testing::HasSubstr;

struct Refusal {
  std::string name;
  std::string prompt;
  ParamMap overrides;
  ErrorCode code;
  std::string says;
  int characters =
      0;  // of a long prompt, made when it is wanted: all tests' processes build the list
};
void PrintTo(const Refusal& refusal, std::ostream* out) { *out << refusal.name; }

class Refusals : public ::testing::TestWithParam<Refusal> {};

TEST_P(Refusals, SayWhy) {
  FakeControls controls;
  House house(controls, {"fake", "other"});
  const StateId state = house.make("s", kGreedy);
  house.feed(state, "before");
  const auto before = house.files(state);
  const auto& [name, words, overrides, code, says, characters] = GetParam();
  const std::string prompt = characters > 0 ? long_text(characters) : words;
  auto what = house.submission(state, JobKind::kAsk, prompt, overrides);
  house.scheduler().announce(state, JobKind::kAsk, what.name);
  const auto reply = house.scheduler().reply(state, what.name).value();
  EXPECT_EQ(house.scheduler().check(what).error().code, code);
  const auto refused = house.scheduler().submit(what);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, code);
  EXPECT_THAT(refused.error().message(), HasSubstr(says));
  EXPECT_FALSE(refused.error().way_out.empty());
  EXPECT_THAT(house.scheduler().status_text(state), HasSubstr(what.name + " error: "));
  EXPECT_THAT(house.scheduler().status_text(state), HasSubstr(says));
  EXPECT_TRUE(reply->error());
  EXPECT_EQ(house.files(state), before);
}

INSTANTIATE_TEST_SUITE_P(
    EachKind, Refusals,
    ::testing::Values(
        Refusal{"Empty", "", {}, ErrorCode::kInvalid, "it is empty"},
        Refusal{"OnlyANewline", "\n", {}, ErrorCode::kInvalid, "it is empty"},
        Refusal{"NotUtf8", "caf\xE9", {}, ErrorCode::kInvalid, "not UTF-8"},
        Refusal{"TooLong", "", {}, ErrorCode::kTooLarge, "leaves room for 4,089", kContext},
        Refusal{"MuchTooLong", "", {}, ErrorCode::kTooLarge, "more than 4,089", 100'000'000},
        Refusal{"BiasBeyondTheVocabulary",
                "a question",
                {{"logit_bias", R"({"260":1})"}},
                ErrorCode::kInvalid,
                "token 260 is not in the vocabulary of fake"},
        Refusal{"OwnLimit",
                "",
                {{"max_prefix_tokens", "50"}},
                ErrorCode::kTooLarge,
                "leaves room for 44",
                60},
        Refusal{"UnknownParameter", "x", {{"heat", "1"}}, ErrorCode::kInvalid, "no such parameter"},
        Refusal{"OutOfRange", "x", {{"top_p", "1.5"}}, ErrorCode::kInvalid, "out of range"},
        Refusal{"NotANumber", "x", {{"max_tokens", "many"}}, ErrorCode::kInvalid, "\"many\""},
        Refusal{"NoSuchModel", "x", {{"model", "gpt"}}, ErrorCode::kNotFound, "fake, other"},
        Refusal{"AnotherModel", "x", {{"model", "other"}}, ErrorCode::kInvalid, "another model"},
        Refusal{"NoChatTemplate",
                "x",
                {{"template", "chat"}},
                ErrorCode::kInvalid,
                "no chat template"}),
    [](const auto& test) { return test.param.name; });

TEST(Refused, StepsOfAnEmptyStateAreRefused) {
  FakeControls controls;
  House house(controls);
  const StateId state = house.make("s");
  auto what = house.submission(state, JobKind::kStep, "");
  what.steps = 1;
  EXPECT_EQ(house.scheduler().check(what).error().code, ErrorCode::kInvalid);
  what.steps = 0;
  house.feed(state, "x");
  EXPECT_EQ(house.scheduler().check(what).error().code, ErrorCode::kInvalid);
}

TEST(Refused, AModelThatCannotPruneSaysSo) {
  FakeControls controls;
  House house(controls);
  const StateId state = house.make("s");
  house.feed(state, "x");
  for (const auto& what :
       {house.submission(state, JobKind::kPrune, "keep_last n=1"),
        house.submission(state, JobKind::kContinue, "y", {{"prune", "keep_last n=1"}})}) {
    const Status refused = house.scheduler().check(what);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kUnsupported);
    EXPECT_THAT(refused.error().message(), HasSubstr("on the CPU"));
  }
}

TEST(Refused, ALiveNameIsTaken) {
  FakeControls controls;
  controls.slice_delay_us = 100'000;
  House house(controls);
  const StateId state = house.make("s");
  auto what = house.submission(state, JobKind::kFeed, "text");
  house.submit(what);
  const auto again = house.scheduler().submit(what);
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, ErrorCode::kExists);
  EXPECT_EQ(house.wait(state, what.name).record.status, JobStatus::kDone);
}

TEST(Refused, AFullQueueSaysSo) {
  FakeControls controls;
  controls.slice_delay_us = 50'000;
  House house(controls);
  house.options.queue_limit = 2;
  house.reopen();
  const StateId state = house.make("s");
  house.submit(house.submission(state, JobKind::kFeed, "one"));
  house.submit(house.submission(state, JobKind::kFeed, "two"));
  const auto third = house.scheduler().submit(house.submission(state, JobKind::kFeed, "three"));
  ASSERT_FALSE(third);
  EXPECT_EQ(third.error().code, ErrorCode::kAgain);
}

TEST(Refused, TruncateKeepsTheHeadOrTheTail) {
  FakeControls controls;
  House house(controls);
  const std::string text = long_text(100);
  const StateId head = house.make("head", {{"truncate", "head"}, {"max_prefix_tokens", "30"}});
  const StateId tail = house.make("tail", {{"truncate", "tail"}, {"max_prefix_tokens", "30"}});
  house.feed(head, text);
  house.feed(tail, text);
  EXPECT_EQ(house.text(head), text.substr(0, 30));
  EXPECT_EQ(house.text(tail), text.substr(70));
}

}  // namespace
}  // namespace kvfs::sched::test
