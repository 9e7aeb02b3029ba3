// Several models within a budget of memory: who goes out, who waits, and that nobody waits for
// ever.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "engine/sched/scheduler.h"
#include "engine/sched/verbs.h"
#include "tests/engine/sched/house.h"

namespace kvfs::sched::test {
namespace {

using namespace std::chrono_literals;
using store::JobKind;
using store::JobStatus;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::uint64_t kWeights = 1 << 20;
constexpr std::uint64_t kKv = 4096 * 64;  // of 4,096 tokens of the fake model
constexpr std::uint64_t kModel = kWeights + kKv;

class Models : public ::testing::Test {
 protected:
  Models() {
    controls_.weights = {{"a", kWeights}, {"b", kWeights}, {"c", kWeights}, {"big", 9 * kWeights}};
    controls_.budget_positions = 4096;
  }
  House& open(std::uint64_t memory, std::chrono::milliseconds patience,
              const std::vector<std::string>& models = {"a", "b", "c"}) {
    house_ = std::make_unique<House>(controls_, models);
    house_->options.memory = memory;
    house_->options.kv_budget = kKv;
    house_->options.model_patience = patience;
    house_->reopen();
    return *house_;
  }
  StateId make(const std::string& name, const std::string& model, int tokens = 5) {
    auto params = greedy(tokens);
    params["model"] = model;
    return house_->make(name, params);
  }
  std::string ask(StateId state) {
    return house_->submit(house_->submission(state, JobKind::kAsk, "go"));
  }
  JobStatus status(StateId state) { return house_->scheduler().jobs(state)[0].record.status; }
  std::string line(StateId state) { return house_->scheduler().status_text(state); }
  bool generates(StateId state) {
    return eventually(
        [&] { return house_->scheduler().jobs(state)[0].record.generated_tokens > 0; });
  }

  FakeControls controls_;
  std::unique_ptr<House> house_;
};

TEST_F(Models, TheLeastRecentlyUsedGoesOut) {
  House& house = open(2 * kModel, 1h);
  const StateId a = make("on-a", "a");
  const StateId b = make("on-b", "b");
  const StateId c = make("on-c", "c");
  house.ask(b, "go");
  EXPECT_THAT(house.scheduler().loaded_models(), ElementsAre("b", "a"));
  house.ask(a, "go");
  house.ask(c, "go");
  EXPECT_THAT(house.scheduler().loaded_models(), ElementsAre("c", "a"));
  house.ask(b, "go");
  EXPECT_THAT(house.scheduler().loaded_models(), ElementsAre("b", "c"));
}

TEST_F(Models, AModelWithJobsStaysAndJobsOnItGoOnWhileAnotherWaits) {
  House& house = open(kModel, 1h);
  controls_.step_delay_us = 5'000;
  const StateId busy = make("busy", "a", 400);
  const StateId waits = make("waits", "b");
  const StateId quick = make("quick", "a");
  const auto long_one = ask(busy);
  ASSERT_TRUE(generates(busy));
  const auto other = ask(waits);
  EXPECT_EQ(house.ask(quick, "go").record.status, JobStatus::kDone);
  EXPECT_THAT(line(waits), HasSubstr("queued"));
  EXPECT_EQ(status(busy), JobStatus::kRunning);
  EXPECT_THAT(house.scheduler().loaded_models(), ElementsAre("a"));

  EXPECT_TRUE(house.scheduler().cancel(busy, long_one));
  EXPECT_EQ(house.wait(waits, other).record.status, JobStatus::kDone);
  EXPECT_THAT(house.scheduler().loaded_models(), ElementsAre("b"));
}

TEST_F(Models, AStreamOfJobsOnOneModelDoesNotStarveAnother) {
  House& house = open(kModel, 50ms);
  controls_.step_delay_us = 5'000;
  std::map<std::string, StateId> stream;  // by job; some always run
  const auto send = [&] {
    const StateId state = make("s" + std::to_string(stream.size()), "a", 40);
    const auto job = ask(state);
    stream.emplace(job, state);
    return state;
  };
  const StateId first = send();
  ASSERT_TRUE(generates(first));
  const StateId waits = make("waits", "b");
  const auto other = ask(waits);
  for (int i = 0; i < 100 && status(waits) != JobStatus::kDone; ++i) {
    send();
    std::this_thread::sleep_for(40ms);
  }
  EXPECT_EQ(status(waits), JobStatus::kDone) << stream.size() << " jobs came before it";
  for (const auto& [job, state] : stream) {
    EXPECT_EQ(house.wait(state, job).record.status, JobStatus::kDone);
  }
}

TEST_F(Models, OneThatIsNotInTheWayTakesJobsWhileAnotherIsWaitedFor) {
  House& house = open(2 * kModel, 0ms);
  controls_.step_delay_us = 5'000;
  const StateId on_a = make("on-a", "a", 400);
  const StateId on_b = make("on-b", "b", 400);
  const StateId waits = make("waits", "c");
  const StateId quick = make("quick", "b");
  const StateId held = make("held", "a");
  const auto running = ask(on_a);
  ASSERT_TRUE(generates(on_a));
  ask(on_b);  // used later than a: a has to go
  ASSERT_TRUE(generates(on_b));
  const auto other = ask(waits);
  const auto behind = ask(held);
  EXPECT_EQ(house.ask(quick, "go").record.status, JobStatus::kDone);
  EXPECT_THAT(line(waits), HasSubstr("queued"));
  EXPECT_THAT(line(held), HasSubstr("queued"));
  EXPECT_TRUE(house.scheduler().cancel(on_a, running));
  EXPECT_EQ(house.wait(waits, other).record.status, JobStatus::kDone);
  EXPECT_EQ(house.wait(held, behind).record.status, JobStatus::kDone);
}

TEST_F(Models, AJobThatIsCanceledWhileItWaitsHoldsUpNobody) {
  House& house = open(kModel, 0ms);
  controls_.step_delay_us = 5'000;
  const StateId busy = make("busy", "a", 400);
  const StateId waits = make("waits", "b");
  const StateId held = make("held", "a");
  ask(busy);
  ASSERT_TRUE(generates(busy));
  const auto other = ask(waits);
  const auto behind = ask(held);
  std::this_thread::sleep_for(50ms);
  EXPECT_THAT(line(held), HasSubstr("queued"));
  EXPECT_TRUE(house.scheduler().cancel(waits, other));
  EXPECT_EQ(house.wait(held, behind).record.status, JobStatus::kDone);
  EXPECT_EQ(status(busy), JobStatus::kRunning);
}

TEST_F(Models, OneBeyondTheBudgetIsRefusedAndNothingIsUnloadedForIt) {
  House& house = open(2 * kModel, 0ms, {"a", "big"});
  const StateId state = make("s", "big");
  const auto job = ask(state);
  const auto ended = house.wait(state, job);
  EXPECT_EQ(ended.record.status, JobStatus::kFailed);
  EXPECT_THAT(ended.record.error, HasSubstr("the budget is"));
  EXPECT_THAT(ended.record.error, HasSubstr("--memory"));
  EXPECT_THAT(house.scheduler().loaded_models(), ElementsAre("a"));
  EXPECT_EQ(house.ask(make("t", "a"), "go").record.status, JobStatus::kDone);
}

TEST_F(Models, WithoutABudgetOfItsOwnKvGetsWhatTheMemoryLeaves) {
  std::map<std::string, std::uint64_t> given;
  const auto load =
      [&](const model::ModelCard& card,
          const model::LoadOptions& options) -> Result<std::unique_ptr<model::Model>> {
    given[card.info.name] = options.kv_budget;
    return fake_model(card, controls_);
  };
  House& alone = open(8 * kModel, 0ms, {"a"});
  alone.options.load = load;
  alone.options.kv_budget = 0;
  alone.reopen();
  EXPECT_EQ(given["a"], 8 * kModel - kWeights);
  House& several = open(8 * kModel, 0ms);
  several.options.load = load;
  several.options.kv_budget = 0;
  several.reopen();
  EXPECT_EQ(given["a"], (8 * kModel - kWeights) / 2);
}

TEST_F(Models, StatusSaysHowMuchOfAModelIsLoaded) {
  House& house = open(8 * kModel, 0ms);
  std::string seen;
  house.options.load =
      [&](const model::ModelCard& card,
          const model::LoadOptions& options) -> Result<std::unique_ptr<model::Model>> {
    if (card.info.name == "b") {
      options.progress(0.4);
      seen = root_status(house.store(), house.scheduler(), house.catalog());
    }
    return fake_model(card, controls_);
  };
  house.reopen();
  house.ask(make("s", "b"), "go");
  EXPECT_THAT(seen, HasSubstr("models a (loaded), b (loading 40 %), c\n"));
  EXPECT_THAT(root_status(house.store(), house.scheduler(), house.catalog()),
              HasSubstr("b (loaded)"));
}

}  // namespace
}  // namespace kvfs::sched::test
