// The scheduler on a fake model: order, batches, failures, crashes, prefixes, refusals.
#include "engine/sched/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <mutex>
#include <thread>

#include "engine/store/write_transaction.h"
#include "tests/engine/sched/house.h"

namespace kvfs::sched::test {
namespace {

using store::JobKind;
using store::JobStatus;
using ::testing::HasSubstr;
using ::testing::Not;

const ParamMap kGreedy{{"temperature", "0"}, {"max_tokens", "40"}};

ParamMap greedy(int max_tokens) {
  return {{"temperature", "0"}, {"max_tokens", std::to_string(max_tokens)}};
}

template <class Condition>
bool eventually(const Condition& condition) {
  for (int i = 0; i < 5000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return false;
}

// --- same history, same bits --------------------------------------------------------------------

TEST(Scheduler, FeedTwiceEqualsFeedOnce) {
  FakeControls controls;
  House house(controls);
  const std::string text = long_text(700);
  const StateId once = house.make("once", {}, {}, 1000);
  const StateId twice = house.make("twice", {}, {}, 1001);  // another's: nothing is known to it
  house.feed(once, text);
  EXPECT_EQ(house.feed(twice, text.substr(0, 300)).record.known_tokens, 0U);
  EXPECT_EQ(house.feed(twice, text.substr(300)).record.known_tokens, 0U);
  EXPECT_EQ(house.text(once), text);
  EXPECT_EQ(house.files(once), house.files(twice));
}

TEST(Scheduler, ContinueThenStepEqualsContinue) {
  FakeControls controls;
  House house(controls);
  for (const bool sampled : {false, true}) {
    const std::string suffix = sampled ? "-sampled" : "-greedy";
    ParamMap params{{"repeat_penalty", "1.3"}};
    if (sampled) {
      params["seed"] = "7";
    } else {
      params["temperature"] = "0";
    }
    const StateId whole = house.make("whole" + suffix, params);
    const StateId parts = house.make("parts" + suffix, params);
    house.go_on(whole, "tell me", {{"max_tokens", "64"}});
    house.go_on(parts, "tell me", {{"max_tokens", "32"}});
    house.reopen();
    const auto stepped = house.step(parts, 32);
    EXPECT_EQ(stepped.record.generated_tokens, 32U);
    EXPECT_EQ(house.files(whole), house.files(parts)) << suffix;
  }
}

TEST(Scheduler, StepAfterReadingEqualsAContinueOfTheSameText) {
  FakeControls controls;
  House house(controls);
  const StateId whole = house.make("whole", greedy(20));
  const StateId parts = house.make("parts", greedy(20));
  house.go_on(whole, "tell me");
  house.feed(parts, "tell me");
  house.step(parts, 20);
  EXPECT_EQ(house.files(whole), house.files(parts));
}

TEST(Scheduler, AskLeavesTheStateAsItWas) {
  FakeControls controls;
  House house(controls);
  const StateId state = house.make("s", kGreedy);
  house.feed(state, long_text(300));
  const auto before = house.files(state);
  const auto versions = house.store().statistics().versions;
  EXPECT_EQ(house.ask(state, "why?").text.size(), 40U);
  EXPECT_EQ(house.files(state), before);
  EXPECT_EQ(house.store().statistics().versions, versions);
}

TEST(Scheduler, AnAskSaysWhatAContinueWouldSay) {
  FakeControls controls;
  House house(controls);
  const StateId state = house.make("s", kGreedy);
  house.feed(state, "some text");
  const auto asked = house.ask(state, "why?");
  EXPECT_EQ(asked.text, house.go_on(state, "why?").text);
}

TEST(Scheduler, ForkContinuesAsTheOriginal) {
  FakeControls controls;
  House house(controls);
  const StateId original = house.make("original", kGreedy);
  house.feed(original, long_text(300));
  const StateId fork = house.make("fork", {}, original);
  house.go_on(original, "and then?");
  house.go_on(fork, "and then?");
  EXPECT_EQ(house.files(original), house.files(fork));
}

TEST(Scheduler, ABatchOfFourEqualsFourBatchesOfOne) {
  FakeControls controls;
  controls.step_delay_us = 500;
  House house(controls);
  std::vector<StateId> together;
  std::vector<std::string> jobs;
  for (int i = 0; i < 4; ++i) {
    together.push_back(house.make("together" + std::to_string(i), greedy(60)));
  }
  for (int i = 0; i < 4; ++i) {
    const std::string prompt = "prompt " + std::to_string(i);
    jobs.push_back(house.submit(
        house.submission(together[static_cast<std::size_t>(i)], JobKind::kContinue, prompt)));
  }
  for (std::size_t i = 0; i < 4; ++i) house.wait(together[i], jobs[i]);
  EXPECT_EQ(controls.largest_batch, 4);
  for (int i = 0; i < 4; ++i) {
    const StateId alone = house.make("alone" + std::to_string(i), greedy(60));
    house.go_on(alone, "prompt " + std::to_string(i));
    EXPECT_EQ(house.files(alone), house.files(together[static_cast<std::size_t>(i)]));
  }
}

TEST(Scheduler, GenerationEndsAtTheEndTokenWhichIsKeptAndNotPrinted) {
  FakeControls controls;
  controls.ends = true;
  House house(controls);
  const StateId state = house.make("s", greedy(500));
  const auto outcome = house.go_on(state, "go");
  EXPECT_EQ(outcome.record.finish, "stop");
  EXPECT_THAT(outcome.text, Not(HasSubstr("<end>")));
  EXPECT_EQ(house.text(state), "go" + outcome.text + "<end>");
  EXPECT_EQ(house.step(state, 1).record.generated_tokens, 1U);  // it goes on all the same
}

TEST(Scheduler, AStopStringCutsTheReplyAndNotTheTokens) {
  FakeControls controls;
  House house(controls);
  const StateId state = house.make("s", kGreedy);
  const auto whole = house.ask(state, "go").text;
  const std::string stop = whole.substr(10, 3);
  const auto at = whole.find(stop);
  const auto cut = house.go_on(state, "go", {{"stop", stop}});
  EXPECT_EQ(cut.text, whole.substr(0, at));
  EXPECT_EQ(cut.record.finish, "stop");
  EXPECT_EQ(house.text(state), "go" + whole.substr(0, at + 3));
}

// --- prefixes -----------------------------------------------------------------------------------

TEST(Scheduler, PrefixHitsPrefillNothing) {
  FakeControls controls;
  House house(controls);
  const std::string text = long_text(600);
  const StateId first = house.make("first");
  house.feed(first, text);
  const auto chunks = house.store().statistics().chunks;
  EXPECT_EQ(house.scheduler().counters().prefilled_tokens, 600U);
  const StateId second = house.make("second", kGreedy);
  const auto fed = house.feed(second, text);
  EXPECT_EQ(fed.record.known_tokens, 600U);
  EXPECT_EQ(house.scheduler().counters().prefilled_tokens, 600U);
  EXPECT_EQ(house.scheduler().counters().prefix_hit_tokens, 600U);
  EXPECT_EQ(house.files(first), house.files(second));
  EXPECT_EQ(house.store().statistics().chunks, chunks);
  // The same words come of a prefix that was found as of one that was read.
  const StateId third = house.make("third", kGreedy);
  const auto known = house.go_on(third, text);
  EXPECT_EQ(known.record.known_tokens, 600U);
  controls.kernel_class = "fake-2";  // nothing is known to this one
  house.reopen();
  const StateId fourth = house.make("fourth", kGreedy);
  const auto computed = house.go_on(fourth, text);
  EXPECT_EQ(computed.record.known_tokens, 0U);
  EXPECT_EQ(computed.text, known.text);
  EXPECT_EQ(house.files(third), house.files(fourth));
}

TEST(Scheduler, APartialBlockIsFilledFromThePrefixIndex) {
  FakeControls controls;
  House house(controls);
  const std::string text = long_text(600);
  house.feed(house.make("first"), text);
  const StateId second = house.make("second");
  house.feed(second, text.substr(0, 100));
  const auto more = house.feed(second, text.substr(100));
  EXPECT_EQ(more.record.known_tokens, 500U);
  EXPECT_EQ(house.text(second), text);
}

TEST(Scheduler, PrefixesAreSharedWithinAnOwnerOnly) {
  FakeControls controls;
  House house(controls);
  const std::string text = long_text(600);
  house.feed(house.make("hers", {}, {}, 1000), text);
  EXPECT_EQ(house.feed(house.make("his", {}, {}, 1001), text).record.known_tokens, 0U);
  house.options.share_prefixes = true;
  house.reopen();
  house.feed(house.make("hers2", {}, {}, 1000), text);
  EXPECT_EQ(house.feed(house.make("his2", {}, {}, 1001), text).record.known_tokens, 600U);
}

TEST(Scheduler, GeneratedTokensAreNotTakenForReadOnesWhereTheirBitsDiffer) {
  FakeControls controls;
  House house(controls);
  const StateId state = house.make("s", greedy(300));
  const auto said = house.go_on(state, "go").text;
  EXPECT_EQ(house.feed(house.make("t"), "go" + said).record.known_tokens, 0U);
  controls.one_path = true;
  controls.kernel_class = "fake-one-path";
  house.reopen();
  const StateId again = house.make("u", greedy(300));
  const auto said_again = house.go_on(again, "go").text;
  EXPECT_EQ(house.feed(house.make("v"), "go" + said_again).record.known_tokens, 302U);
}

TEST(Scheduler, ImportedVersionsNeverEnterThePrefixIndex) {
  FakeControls controls;
  House house(controls);
  const std::string text = long_text(512);
  const StateId honest = house.make("honest");
  house.feed(honest, text.substr(0, 100));
  // A copy with true tokens and false tensors.
  auto forged = house.version(honest);
  auto block = house.store().block(forged.blocks[0]);
  ASSERT_TRUE(block);
  store::NewBlock lie{.index = 0, .tokens = block->tokens, .text = block->text};
  for (const auto& segment : block->segments) {
    auto piece = house.store().read_segment(segment);
    ASSERT_TRUE(piece);
    std::ranges::fill(piece->key, std::uint8_t{0});
    std::ranges::fill(piece->value, std::uint8_t{0});
    lie.pieces.push_back(*piece);
  }
  const auto lie_id = house.store().add_block(lie, forged.kv_dtype, forged.codec);
  ASSERT_TRUE(lie_id);
  const StateId imported = house.make("imported");
  forged.blocks = {*lie_id};
  forged.origin = store::Origin::kImported;
  ASSERT_TRUE(house.store().write([&](store::WriteTransaction& tx) -> Status {
    KVFS_ASSIGN(const auto id, tx.add_version(forged));
    return tx.set_version(imported, id);
  }));
  house.feed(imported, text.substr(100));
  EXPECT_EQ(house.version(imported).origin, store::Origin::kImported);
  for (const BlockId id : house.version(imported).blocks) {
    EXPECT_FALSE(house.store().block(id)->key);
  }
  const auto fed = house.feed(house.make("victim"), text);
  EXPECT_EQ(fed.record.known_tokens, 0U);
}

// --- restoring ----------------------------------------------------------------------------------

TEST(Scheduler, AfterARestartOnlyThePromptIsPrefilled) {
  FakeControls controls;
  House house(controls);
  const StateId state = house.make("s", kGreedy);
  house.feed(state, long_text(700));
  const auto before = house.ask(state, "why?").text;
  house.reopen();
  const auto asked = house.ask(state, "why?");
  EXPECT_EQ(asked.text, before);
  EXPECT_EQ(asked.record.restored_tokens, 700U);
  EXPECT_EQ(house.scheduler().counters().prefilled_tokens, 4U);
  EXPECT_EQ(house.scheduler().counters().restored_tokens, 700U);
  EXPECT_EQ(house.ask(state, "why?").record.restored_tokens, 0U);  // it is resident now
}

TEST(Scheduler, StatesTakeTurnsOnADeviceThatHoldsOne) {
  FakeControls controls;
  controls.budget_positions = 1500;
  House house(controls);
  const StateId one = house.make("one", kGreedy);
  const StateId two = house.make("two", kGreedy);
  house.feed(one, long_text(600, "one"));
  house.feed(two, long_text(600, "two"));
  const auto first = house.ask(one, "why?").text;
  const auto second = house.ask(two, "why?").text;
  EXPECT_EQ(house.ask(one, "why?").text, first);
  EXPECT_EQ(house.ask(two, "why?").text, second);
  EXPECT_GT(house.scheduler().counters().restored_tokens, 0U);
}

TEST(Scheduler, AnotherKernelClassContinuesAndEndsTheChain) {
  FakeControls controls;
  House house(controls);
  const StateId state = house.make("s", kGreedy);
  house.feed(state, long_text(300));
  controls.kernel_class = "fake-2";
  house.reopen();
  house.feed(state, long_text(300, "more"));
  EXPECT_EQ(house.version(state).kernel_class, "fake-2");
  const auto blocks = house.version(state).blocks;
  EXPECT_TRUE(house.store().block(blocks.front())->key);
  EXPECT_FALSE(house.store().block(blocks.back())->key);
}

// --- order and fairness -------------------------------------------------------------------------

TEST(Scheduler, JobsOnOneStateKeepTheirOrder) {
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

TEST(Scheduler, AQuestionNeverWaitsBehindALongFeed) {
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

TEST(Scheduler, FeedsTakeTurns) {
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

TEST(Scheduler, AQuestionNeverWaitsBehindManyFeeds) {
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

TEST(Scheduler, DoneIsSaidAfterTheCommit) {
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

TEST(Scheduler, ReadersSeeTheReplyGrow) {
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

// --- cancel, failure, crash ---------------------------------------------------------------------

TEST(Scheduler, CanceledFeedChangesNothing) {
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

TEST(Scheduler, ACanceledContinueKeepsWhatItSaid) {
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

TEST(Scheduler, AQueuedJobIsCanceledAtOnce) {
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

TEST(Scheduler, AFailureOfTheDeviceLeavesTheStateAsItWas) {
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

TEST(Scheduler, OneJobsFailureSparesTheOthersOfItsBatch) {
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

TEST(Scheduler, UnfinishedJobsStartAgainOnceAfterACrash) {
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

TEST(Scheduler, RemovalCancelsWhatRuns) {
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

TEST(Scheduler, AStateWithChildrenStaysAndTakesJobs) {
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

TEST(Scheduler, FinishedJobsBeyondTheLimitGoWithTheirReplies) {
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

TEST(Scheduler, AReusedNameReplacesTheOldReply) {
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

TEST(Scheduler, AModelIsUnloadedForAnother) {
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

TEST(Scheduler, AStateGoesOnWithTheModelThatMadeIt) {
  FakeControls controls;
  House house(controls, {"fake", "other"});
  const StateId state = house.make("s", kGreedy);
  house.go_on(state, "go", {{"model", "other"}});
  const auto more = house.go_on(state, "on");
  EXPECT_EQ(more.record.params.at("model"), "other");
  EXPECT_EQ(house.version(state).model, "other");
}

// --- refusals -----------------------------------------------------------------------------------

struct Refusal {
  std::string name;
  std::string prompt;
  ParamMap overrides;
  ErrorCode code;
  std::string says;
};

class Refusals : public ::testing::TestWithParam<Refusal> {};

TEST_P(Refusals, SayWhy) {
  FakeControls controls;
  House house(controls, {"fake", "other"});
  const StateId state = house.make("s", kGreedy);
  house.feed(state, "before");
  const auto before = house.files(state);
  const auto& [name, prompt, overrides, code, says] = GetParam();
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
        Refusal{"TooLong", long_text(kContext), {}, ErrorCode::kTooLarge, "leaves room for 4,089"},
        Refusal{"MuchTooLong", long_text(100'000'000), {}, ErrorCode::kTooLarge, "more than 4,089"},
        Refusal{"OwnLimit",
                long_text(60),
                {{"max_prefix_tokens", "50"}},
                ErrorCode::kTooLarge,
                "leaves room for 44"},
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

TEST(Scheduler, StepsOfAnEmptyStateAreRefused) {
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

TEST(Scheduler, ALiveNameIsTaken) {
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

TEST(Scheduler, AFullQueueSaysSo) {
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

TEST(Scheduler, TruncateKeepsTheHeadOrTheTail) {
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
