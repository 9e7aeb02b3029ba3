// The scheduler on a fake model that draws its tokens itself: steps launched ahead of what jobs
// have heard give the text, and the state, of one step at a time.
#include <gtest/gtest.h>

#include "tests/engine/sched/house.h"

namespace kvfs::sched::test {
namespace {

using store::JobKind;
using store::JobStatus;

ParamMap with(ParamMap params, const ParamMap& more) {
  params.insert(more.begin(), more.end());
  return params;
}

const ParamMap kWarm{{"temperature", "1.2"}, {"top_p", "0.9"}, {"max_tokens", "60"}, {"seed", "7"}};

class Ahead : public ::testing::Test {
 protected:
  // Of an owner of its own: nothing is shared with the others' states.
  StateId stranger(const ParamMap& params) {
    const std::uint32_t user = next_user_++;
    return house_.make("s" + std::to_string(user), params, {}, user);
  }
  struct Said {
    std::string text, finish;
    std::uint32_t generated = 0;
    std::map<std::string, std::string> files;
    bool operator==(const Said&) const = default;
  };
  Said go_on(int most_ahead, const ParamMap& params, const std::string& prompt) {
    controls_.most_ahead = most_ahead;
    const StateId state = stranger(params);
    const Outcome outcome = house_.go_on(state, prompt);
    return {outcome.text, outcome.record.finish, outcome.record.generated_tokens,
            house_.files(state)};
  }
  void expect_as_one_by_one(const ParamMap& params, const std::string& prompt = "tell me") {
    const int launched = controls_.steps_launched;
    const Said ahead = go_on(3, params, prompt);
    EXPECT_GT(controls_.steps_launched, launched);
    EXPECT_EQ(ahead, go_on(0, params, prompt));
    EXPECT_EQ(ahead, go_on(1, params, prompt));
  }

  FakeControls controls_;
  House house_{controls_};
  std::uint32_t next_user_ = 1000;
};

TEST_F(Ahead, TheTextAndTheStateAreThoseOfOneStepAtATime) {
  expect_as_one_by_one(greedy(40));
  expect_as_one_by_one(greedy(1));
  expect_as_one_by_one(greedy(300), long_text(200));  // blocks fill meanwhile
  expect_as_one_by_one(kWarm);
}

TEST_F(Ahead, PenaltiesCountWhatIsStillUnheard) {
  expect_as_one_by_one({{"temperature", "0"},
                        {"max_tokens", "80"},
                        {"repeat_penalty", "1.3"},
                        {"presence_penalty", "0.5"},
                        {"frequency_penalty", "0.7"},
                        {"logit_bias", "{\"101\": 5}"}});
}

TEST_F(Ahead, WhatWasLaunchedPastTheEndOfAReplyIsDropped) {
  controls_.ends = true;
  expect_as_one_by_one(greedy(300));
  controls_.ends = false;
  const std::string whole = go_on(0, greedy(40), "tell me").text;
  for (const std::size_t at : {1U, 2U, 3U, 17U, 36U}) {
    expect_as_one_by_one(with(greedy(40), {{"stop", whole.substr(at, 3)}}));
  }
}

TEST_F(Ahead, TheContextEndsWhereItDoes) {
  expect_as_one_by_one(greedy(40), long_text(kContext - 5));
}

TEST_F(Ahead, NoStepIsLaunchedForNothing) {
  const StateId state = stranger(greedy(5));
  house_.ask(state, "why?");
  EXPECT_EQ(controls_.steps_launched, 4);  // the first token comes of the prompt
  house_.go_on(state, "why?");
  EXPECT_EQ(controls_.steps_launched, 9);  // and the last one's KV is the state's
  EXPECT_EQ(controls_.steps_decoded, 0);
}

TEST_F(Ahead, ACanceledReplyLeavesTheStateThatEndsThere) {
  controls_.step_delay_us = 1000;
  const StateId state = stranger(greedy(1000));
  const auto job = house_.submit(house_.submission(state, JobKind::kContinue, "go"));
  ASSERT_TRUE(
      eventually([&] { return house_.scheduler().jobs(state)[0].record.generated_tokens > 5; }));
  ASSERT_TRUE(house_.scheduler().cancel(state, job));
  const Outcome canceled = house_.wait(state, job);
  EXPECT_EQ(canceled.record.status, JobStatus::kCanceled);
  controls_.step_delay_us = 0;
  const Said whole = go_on(0, greedy(static_cast<int>(canceled.record.generated_tokens)), "go");
  EXPECT_EQ(canceled.text, whole.text);
  EXPECT_EQ(house_.files(state), whole.files);
  const Outcome after = house_.ask(state, "and?");
  EXPECT_EQ(after.text, house_.ask(state, "and?").text);
}

TEST_F(Ahead, WhoJoinsAndLeavesChangesNobodysText) {
  const auto params = [](int i) {
    return with({{"max_tokens", std::to_string(10 + 37 * i % 50)}},
                i % 2 == 0 ? ParamMap{{"temperature", "0"}}
                           : ParamMap{{"temperature", "1"}, {"seed", std::to_string(i)}});
  };
  controls_.step_delay_us = 300;
  std::vector<std::pair<StateId, std::string>> jobs;
  for (int i = 0; i < 10; ++i) {
    jobs.emplace_back(stranger(params(i)), "");
    auto what =
        house_.submission(jobs.back().first, i % 3 == 0 ? JobKind::kContinue : JobKind::kAsk,
                          long_text(20 + static_cast<std::size_t>(i)));
    jobs.back().second = house_.submit(what);
  }
  std::vector<Outcome> together;
  for (const auto& [state, job] : jobs) together.push_back(house_.wait(state, job));
  EXPECT_GT(controls_.largest_batch, 1);
  controls_.step_delay_us = 0;
  controls_.most_ahead = 0;
  for (int i = 0; i < 10; ++i) {
    const auto& done = together[static_cast<std::size_t>(i)];
    ASSERT_EQ(done.record.status, JobStatus::kDone);
    const Outcome alone =
        house_.ask(stranger(params(i)), long_text(20 + static_cast<std::size_t>(i)));
    EXPECT_EQ(done.text, alone.text) << i;
  }
}

TEST_F(Ahead, WhereTheDeviceCannotDrawTheHostDoes) {
  const ParamMap typical = with(kWarm, {{"typical", "0.9"}});
  EXPECT_EQ(go_on(3, typical, "go"), go_on(0, typical, "go"));
  house_.ask(stranger(with(kWarm, {{"logprobs", "2"}})), "go");
  EXPECT_EQ(controls_.steps_launched, 0);

  // Beside one that the device draws for, which it does again when it is alone.
  const Said alone = go_on(0, greedy(200), "tell me");
  controls_.most_ahead = 3;
  controls_.step_delay_us = 500;
  const StateId state = stranger(greedy(200));
  const auto job = house_.submit(house_.submission(state, JobKind::kContinue, "tell me"));
  ASSERT_TRUE(eventually([&] { return controls_.steps_launched > 10; }));
  const int decoded = controls_.steps_decoded;
  const int launched = controls_.steps_launched;
  house_.ask(stranger(with(greedy(20), {{"logprobs", "2"}})), "go");
  EXPECT_EQ(house_.wait(state, job).text, alone.text);
  EXPECT_EQ(house_.files(state), alone.files);
  EXPECT_GE(controls_.steps_decoded, decoded + 19);
  EXPECT_GT(controls_.steps_launched, launched);
}

TEST_F(Ahead, AStepThatFailsBehindTheHostFailsItsJobsAndNoOthers) {
  const StateId state = stranger(greedy(40));
  house_.feed(state, "before ");
  const auto before = house_.files(state);
  controls_.hear_fails_after = 20;
  EXPECT_EQ(house_.go_on(state, "go").record.status, JobStatus::kFailed);
  controls_.hear_fails_after = -1;
  EXPECT_EQ(house_.files(state), before);
  EXPECT_EQ(house_.go_on(state, "go").record.status, JobStatus::kDone);
}

}  // namespace
}  // namespace kvfs::sched::test
