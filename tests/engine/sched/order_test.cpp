// The scheduler on a fake model: who comes first, and when a job is done.
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

TEST(Order, JobsOnOneStateKeepTheirOrder) {
  FakeControls controls;
  controls.slice_delay_us = 20'000;
  House house(controls);
  const StateId state = house.make("s", greedy(5));
  std::vector<std::string> jobs;
  jobs.push_back(house.submit(house.submission(state, JobKind::kFeed, "one ")));
  jobs.push_back(house.submit(house.submission(state, JobKind::kAsk, "what?")));
  jobs.push_back(house.submit(house.submission(state, JobKind::kFeed, "two ")));
  jobs.push_back(house.submit(house.submission(state, JobKind::kFeed, "three ")));
  EXPECT_TRUE(house.scheduler().busy(state));
  for (const auto& job : jobs) house.wait(state, job);
  EXPECT_FALSE(house.scheduler().busy(state));
  EXPECT_EQ(house.text(state), "one two three ");
  // The question saw the feed before it and not those after it.
  const StateId same = house.make("same", greedy(5));
  house.feed(same, "one ");
  EXPECT_EQ(house.ask(same, "what?").text, house.wait(state, jobs[1]).text);
}

TEST(Order, AQuestionNeverWaitsBehindALongFeed) {
  FakeControls controls;
  controls.slice_delay_us = 30'000;
  House house(controls);
  const StateId reading = house.make("reading");
  const StateId asked = house.make("asked", greedy(3));
  const auto feed = house.submit(house.submission(reading, JobKind::kFeed, long_text(4000)));
  ASSERT_TRUE(eventually([&] { return house.scheduler().jobs(reading)[0].read_tokens > 0; }));
  house.ask(asked, "quick?");
  EXPECT_EQ(house.scheduler().jobs(reading)[0].record.status, JobStatus::kRunning);
  house.wait(reading, feed);
}

TEST(Order, FeedsTakeTurns) {
  FakeControls controls;
  controls.slice_delay_us = 10'000;
  House house(controls);
  const StateId one = house.make("one");
  const StateId two = house.make("two");
  house.submit(house.submission(one, JobKind::kFeed, long_text(4000, "one")));
  const auto second = house.submit(house.submission(two, JobKind::kFeed, long_text(500, "two")));
  house.wait(two, second);
  EXPECT_EQ(house.scheduler().jobs(one)[0].record.status, JobStatus::kRunning);
}

TEST(Order, WhoIsAloneIsReadAtOnceAndInSlicesAsSoonAsAnotherComes) {
  FakeControls controls;
  controls.prefill_alone = 2000;
  House house(controls);
  const StateId alone = house.make("alone");
  house.feed(alone, long_text(3000));
  EXPECT_GT(controls.largest_slice, 1500);

  controls.slice_delay_us = 20'000;
  const StateId one = house.make("one");
  const StateId two = house.make("two");
  const auto read = [&](const StateId& state) {
    return house.scheduler().jobs(state)[0].read_tokens;
  };
  house.submit(house.submission(one, JobKind::kFeed, long_text(4000, "one")));
  house.submit(house.submission(two, JobKind::kFeed, long_text(4000, "two")));
  ASSERT_TRUE(eventually([&] { return read(two) > 0; }));
  controls.largest_slice = 0;
  const auto before = read(two);
  ASSERT_TRUE(eventually([&] { return read(two) > before; }));
  EXPECT_GT(controls.largest_slice, 0);
  EXPECT_LE(controls.largest_slice, kFakeSlice);
  EXPECT_EQ(house.scheduler().jobs(one)[0].record.status, JobStatus::kRunning);
}

TEST(Order, AQuestionNeverWaitsBehindManyFeeds) {
  FakeControls controls;
  controls.slice_delay_us = 10'000;
  controls.max_batch = 2;
  House house(controls);
  std::vector<StateId> states;
  for (int i = 0; i < 6; ++i) {
    states.push_back(house.make("s" + std::to_string(i)));
    house.submit(
        house.submission(states.back(), JobKind::kFeed, long_text(3000, std::to_string(i))));
  }
  house.ask(house.make("asked", greedy(3)), "quick?");
  EXPECT_EQ(house.scheduler().jobs(states.back())[0].record.status, JobStatus::kQueued);
}

TEST(Order, DoneIsSaidAfterTheCommit) {
  FakeControls controls;
  House house(controls);
  const StateId state = house.make("s", kGreedy);
  std::mutex mutex;
  std::vector<std::string> heard;
  house.scheduler().set_listener([&](const Event& event) {
    const auto status = house.scheduler().jobs(state).at(0).record.status;
    const bool on_disk = static_cast<bool>(house.store().state(state)->version);
    const std::lock_guard lock(mutex);
    heard.push_back(std::string(event.kind == Event::Kind::kAdvanced ? "advanced" : "job") +
                    (on_disk ? " on disk " : " ") + std::string(store::name_of(status)));
  });
  house.go_on(state, "go");
  ASSERT_TRUE(eventually([&] {
    const std::lock_guard lock(mutex);
    return heard.size() >= 3;
  }));
  const std::lock_guard lock(mutex);
  EXPECT_THAT(heard, ::testing::ElementsAre(HasSubstr("job "), "advanced on disk running",
                                            "job on disk done"));
}

TEST(Order, ReadersSeeTheReplyGrow) {
  FakeControls controls;
  controls.step_delay_us = 2000;
  House house(controls);
  const StateId state = house.make("s", greedy(30));
  house.scheduler().announce(state, JobKind::kAsk, "q");
  const auto reply = house.scheduler().reply(state, "q");
  ASSERT_TRUE(reply);
  std::promise<bool> woken;
  ASSERT_TRUE((*reply)->wait(0, [&] { woken.set_value((*reply)->finished()); }));
  auto what = house.submission(state, JobKind::kAsk, "go");
  what.name = "q";
  house.submit(what);
  EXPECT_FALSE(woken.get_future().get());
  house.wait(state, "q");
  EXPECT_TRUE((*reply)->finished());
  EXPECT_EQ((*reply)->size(), 30U);
}

}  // namespace
}  // namespace kvfs::sched::test
