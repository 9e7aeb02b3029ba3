// The scheduler on a fake model: cancels, failures, crashes, limits.
#include "engine/sched/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <mutex>
#include <thread>

#include "tests/engine/sched/house.h"

namespace kvfs::sched::test {
namespace {

using store::JobKind;
using store::JobStatus;
using ::testing::HasSubstr;

TEST(Failures, CanceledFeedChangesNothing) {
  FakeControls controls;
  House house(controls);
  const StateId state = house.make("s");
  house.feed(state, "before ");
  const auto before = house.files(state);
  controls.slice_delay_us = 20'000;
  const auto job = house.submit(house.submission(state, JobKind::kFeed, long_text(3000)));
  ASSERT_TRUE(eventually([&] { return house.scheduler().jobs(state)[0].read_tokens > 300; }));
  ASSERT_TRUE(house.scheduler().cancel(state, job));
  EXPECT_EQ(house.wait(state, job).record.status, JobStatus::kCanceled);
  EXPECT_EQ(house.files(state), before);
}

TEST(Failures, ACanceledContinueKeepsWhatItSaid) {
  FakeControls controls;
  controls.step_delay_us = 2000;
  House house(controls);
  const StateId state = house.make("s", greedy(1000));
  const auto job = house.submit(house.submission(state, JobKind::kContinue, "go"));
  ASSERT_TRUE(
      eventually([&] { return house.scheduler().jobs(state)[0].record.generated_tokens > 5; }));
  ASSERT_TRUE(house.scheduler().cancel(state, job));
  const auto outcome = house.wait(state, job);
  EXPECT_EQ(outcome.record.status, JobStatus::kCanceled);
  EXPECT_GT(outcome.text.size(), 4U);
  EXPECT_LT(outcome.text.size(), 1000U);
  EXPECT_EQ(house.text(state), "go" + outcome.text);
}

TEST(Failures, AQueuedJobIsCanceledAtOnce) {
  FakeControls controls;
  controls.slice_delay_us = 50'000;
  House house(controls);
  const StateId state = house.make("s");
  const auto first = house.submit(house.submission(state, JobKind::kFeed, long_text(1500)));
  const auto second = house.submit(house.submission(state, JobKind::kFeed, "never"));
  ASSERT_TRUE(house.scheduler().cancel(state, second));
  EXPECT_EQ(house.wait(state, second).record.status, JobStatus::kCanceled);
  EXPECT_FALSE(house.scheduler().cancel(state, second));
  house.wait(state, first);
  EXPECT_EQ(house.text(state), long_text(1500));
}

TEST(Failures, AFailureOfTheDeviceLeavesTheStateAsItWas) {
  FakeControls controls;
  House house(controls);
  const StateId state = house.make("s", kGreedy);
  house.feed(state, "before ");
  const auto before = house.files(state);
  controls.prefill_fails_at = '#';
  auto what = house.submission(state, JobKind::kFeed, "good # bad");
  house.submit(what);
  const auto failed = house.wait(state, what.name);
  EXPECT_EQ(failed.record.status, JobStatus::kFailed);
  EXPECT_THAT(house.scheduler().status_text(state),
              HasSubstr(what.name + " error: fake device: it was told to break; tell it not to"));
  EXPECT_EQ(house.scheduler().reply(state, what.name).value()->error()->code, ErrorCode::kIo);
  controls.decode_fails_after = 30;
  EXPECT_EQ(house.go_on(state, "go").record.status, JobStatus::kFailed);
  EXPECT_EQ(house.files(state), before);
  controls.decode_fails_after = -1;
  EXPECT_EQ(house.go_on(state, "go").record.status, JobStatus::kDone);
}

TEST(Failures, OneJobsFailureSparesTheOthersOfItsBatch) {
  FakeControls controls;
  controls.step_delay_us = 2000;
  controls.decode_fails_after = 60;
  House house(controls);
  const StateId bad = house.make("bad", greedy(50));
  const StateId good = house.make("good", greedy(30));
  const auto doomed = house.submit(house.submission(bad, JobKind::kAsk, long_text(40)));
  const auto fine = house.submit(house.submission(good, JobKind::kAsk, "go"));
  EXPECT_EQ(house.wait(bad, doomed).record.status, JobStatus::kFailed);
  EXPECT_EQ(house.wait(good, fine).text.size(), 30U);
  EXPECT_EQ(controls.largest_batch, 2);
}

TEST(Failures, UnfinishedJobsStartAgainOnceAfterACrash) {
  FakeControls controls;
  House house(controls);
  const ParamMap sampled{{"max_tokens", "200"}};
  const StateId state = house.make("s", sampled);
  house.feed(state, "before ");
  controls.step_delay_us = 2000;
  const auto running = house.submit(house.submission(state, JobKind::kContinue, "go"));
  const auto queued = house.submit(house.submission(state, JobKind::kFeed, " after"));
  ASSERT_TRUE(
      eventually([&] { return house.scheduler().jobs(state)[1].record.generated_tokens > 20; }));
  const auto reply = house.scheduler().reply(state, running).value();
  const auto seed = house.scheduler().jobs(state)[1].record.seed;
  house.reopen([&] {
    EXPECT_EQ(reply->error()->code, ErrorCode::kInterrupted);
    controls.step_delay_us = 0;
  });
  const auto outcome = house.wait(state, running);
  house.wait(state, queued);
  EXPECT_EQ(outcome.record.status, JobStatus::kDone);
  EXPECT_EQ(outcome.record.seed, seed);
  EXPECT_EQ(outcome.text.size(), 200U);
  EXPECT_EQ(house.text(state), "before go" + outcome.text + " after");
  // Never having been stopped says the same.
  const StateId calm = house.make("calm", {{"max_tokens", "200"}, {"seed", std::to_string(seed)}});
  house.feed(calm, "before ");
  house.go_on(calm, "go");
  house.feed(calm, " after");
  EXPECT_EQ(house.files(calm), house.files(state));
  house.reopen();
  EXPECT_EQ(house.text(state), "before go" + outcome.text + " after");
}

TEST(Failures, RemovalCancelsWhatRuns) {
  FakeControls controls;
  controls.slice_delay_us = 10'000;
  House house(controls);
  const StateId state = house.make("s");
  house.submit(house.submission(state, JobKind::kFeed, long_text(3000)));
  house.submit(house.submission(state, JobKind::kFeed, "more"));
  std::promise<Status> removed;
  remove_state(house.store(), house.scheduler(), state,
               [&](Status status) { removed.set_value(std::move(status)); });
  EXPECT_TRUE(removed.get_future().get());
  EXPECT_FALSE(house.store().state(state));
  EXPECT_TRUE(house.store().jobs()->empty());
  EXPECT_FALSE(house.scheduler().submit(house.submission(state, JobKind::kAsk, "there?")));
}

TEST(Failures, AStateWithChildrenStaysAndTakesJobs) {
  FakeControls controls;
  House house(controls);
  const StateId state = house.make("s", kGreedy);
  house.make("child", {}, state);
  std::promise<Status> removed;
  remove_state(house.store(), house.scheduler(), state,
               [&](Status status) { removed.set_value(std::move(status)); });
  EXPECT_EQ(removed.get_future().get().error().code, ErrorCode::kNotEmpty);
  EXPECT_EQ(house.ask(state, "there?").record.status, JobStatus::kDone);
}

TEST(Failures, FinishedJobsBeyondTheLimitGoWithTheirReplies) {
  FakeControls controls;
  House house(controls);
  house.options.finished_per_state = 3;
  house.reopen();
  const StateId state = house.make("s", greedy(2));
  for (int i = 0; i < 6; ++i) house.ask(state, "go");
  EXPECT_EQ(house.scheduler().jobs(state).size(), 3U);
  EXPECT_EQ(house.store().files(state, store::FileArea::kReply)->size(), 3U);
  EXPECT_EQ(house.store().jobs()->size(), 3U);
}

TEST(Failures, AReusedNameReplacesTheOldReply) {
  FakeControls controls;
  House house(controls);
  const StateId state = house.make("s", greedy(5));
  auto what = house.submission(state, JobKind::kAsk, "one?");
  what.name = "q";
  house.submit(what);
  const auto first = house.wait(state, "q").text;
  what.prompt = "two?";
  const auto id = house.scheduler().submit(what);
  ASSERT_TRUE(id);
  ASSERT_TRUE(eventually([&] {
    const auto jobs = house.scheduler().jobs(state);
    return jobs[0].id == *id && jobs[0].record.status == JobStatus::kDone;
  }));
  EXPECT_EQ(house.scheduler().jobs(state).size(), 1U);
  EXPECT_NE(house.wait(state, "q").text, first);
  EXPECT_EQ(house.store().jobs()->size(), 1U);
  house.reopen();
  EXPECT_EQ(house.scheduler().jobs(state).size(), 1U);
}

TEST(Failures, AModelIsUnloadedForAnother) {
  FakeControls controls;
  House house(controls, {"fake", "other"});
  int loaded = 0;
  house.options.load = [&](const model::ModelCard& card,
                           const model::LoadOptions&) -> Result<std::unique_ptr<model::Model>> {
    if (loaded++ % 2 == 1) {  // every second load finds the device full
      return fail(ErrorCode::kTooLarge, "model " + card.info.name, "it does not fit", "wait");
    }
    return fake_model(card, controls);
  };
  house.reopen();
  const StateId state = house.make("s", {{"model", "other"}, {"temperature", "0"}});
  EXPECT_EQ(house.ask(state, "go").record.status, JobStatus::kDone);
  EXPECT_EQ(house.scheduler().loaded_models(), std::vector<std::string>{"other"});
}

TEST(Failures, AStateGoesOnWithTheModelThatMadeIt) {
  FakeControls controls;
  House house(controls, {"fake", "other"});
  const StateId state = house.make("s", kGreedy);
  house.go_on(state, "go", {{"model", "other"}});
  const auto more = house.go_on(state, "on");
  EXPECT_EQ(more.record.params.at("model"), "other");
  EXPECT_EQ(house.version(state).model, "other");
}

}  // namespace
}  // namespace kvfs::sched::test
