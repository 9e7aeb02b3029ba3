// The scheduler on a fake model: how a version comes back to the device, and what its job says of
// it. Rates are given, as if they had been measured.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/store/write_transaction.h"
#include "tests/engine/sched/house.h"

namespace kvfs::sched::test {
namespace {

using store::JobKind;
using ::testing::HasSubstr;

constexpr double kTokenBytes = 64;  // of the fake model: 2 layers of 2 words, keys and values
constexpr std::uint64_t kMuch = 64 << 20;

Planner slow_store() {  // reading: 25 us a token, restoring 1 ms
  Planner rates;
  rates.read(0, 4096, Planner::Seconds{4096 * 25e-6});
  rates.restored(kMuch, Planner::Seconds{kMuch / kTokenBytes * 1e-3});
  return rates;
}

Planner dear_late_tokens() {  // sooner read than restored up to position 520
  Planner rates;
  const auto cost = [](double position) { return 1e-4 + 1e-5 * position; };
  for (Position i = 0; i < 64; ++i) {
    const Position at = i % 16 * 256;
    rates.read(at, 256, Planner::Seconds{256 * cost(at + 128)});
  }
  rates.restored(kMuch, Planner::Seconds{kMuch / kTokenBytes * cost(520)});
  return rates;
}

class Resume : public ::testing::Test {
 protected:
  void reopen(const Planner& rates) {
    house_.options.rates = rates;
    house_.reopen();
  }
  Counters counters() { return house_.scheduler().counters(); }
  // Of an owner of its own: nothing is shared with the others' states.
  StateId stranger(const std::string& name, int max_tokens = 40) {
    return house_.make(name, greedy(max_tokens), {}, next_user_++);
  }

  FakeControls controls_;
  House house_{controls_};
  std::uint32_t next_user_ = 1000;
};

TEST_F(Resume, WhereTheStoreIsSlowTheTokensAreReadAgainToTheSameBits) {
  const StateId restored = stranger("restored");
  const StateId recomputed = stranger("recomputed");
  for (const StateId state : {restored, recomputed}) house_.feed(state, long_text(700));
  reopen({});
  const auto first = house_.go_on(restored, "why?");
  EXPECT_EQ(first.record.restored_tokens, 700U);
  EXPECT_EQ(first.record.recomputed_tokens, 0U);
  EXPECT_EQ(first.record.prefilled_tokens, 4U);
  EXPECT_EQ(counters().prefilled_tokens, 4U);
  reopen(slow_store());
  const auto second = house_.go_on(recomputed, "why?");
  EXPECT_EQ(second.record.restored_tokens, 0U);
  EXPECT_EQ(second.record.recomputed_tokens, 700U);
  EXPECT_EQ(second.record.prefilled_tokens, 4U);
  EXPECT_EQ(counters().prefilled_tokens, 704U);
  EXPECT_EQ(counters().restored_tokens, 0U);
  EXPECT_EQ(first.text, second.text);
  EXPECT_EQ(house_.files(restored), house_.files(recomputed));
  EXPECT_EQ(house_.ask(recomputed, "and?").record.recomputed_tokens, 0U);  // it is resident now
}

TEST_F(Resume, ADeviceThatDecodesGetsChunksAsTheyAreKept) {
  const StateId state = stranger("decoded");
  const StateId twin = stranger("stored");
  for (const StateId each : {state, twin}) house_.feed(each, long_text(700));
  reopen({});
  const auto decoded = house_.go_on(state, "why?");
  EXPECT_EQ(controls_.stored_pieces, 0);
  controls_.takes_stored = true;
  controls_.finds_damage = true;
  const auto damaged = house_.go_on(twin, "why?");
  EXPECT_EQ(damaged.record.status, store::JobStatus::kFailed);
  EXPECT_THAT(damaged.record.error, HasSubstr("no such code"));
  controls_.finds_damage = false;
  controls_.stored_pieces = 0;
  const auto stored = house_.go_on(twin, "why?");
  EXPECT_EQ(controls_.stored_pieces, 2 * 3);  // layers, blocks
  EXPECT_EQ(stored.record.restored_tokens, 700U);
  EXPECT_EQ(stored.text, decoded.text);
  EXPECT_EQ(house_.files(state), house_.files(twin));
}

TEST_F(Resume, TheHeadIsReadAndTheTailRestoredWhereThatIsSoonest) {
  const StateId state = stranger("s");
  const StateId twin = stranger("twin");
  for (const StateId each : {state, twin}) house_.feed(each, long_text(1500));
  reopen(dear_late_tokens());
  const auto asked = house_.go_on(state, "why?");
  EXPECT_EQ(asked.record.recomputed_tokens, 512U);
  EXPECT_EQ(asked.record.restored_tokens, 988U);
  reopen({});
  EXPECT_EQ(house_.go_on(twin, "why?").text, asked.text);
  EXPECT_EQ(house_.files(state), house_.files(twin));
}

TEST_F(Resume, WhatManyWaitForIsReadOnce) {
  const StateId state = stranger("s", 4);
  house_.feed(state, long_text(700));
  reopen(slow_store());
  controls_.slice_delay_us = 5000;
  std::vector<std::string> jobs;
  for (int i = 0; i < 6; ++i) {
    jobs.push_back(house_.submit(house_.submission(state, JobKind::kAsk, "why?")));
  }
  for (const auto& job : jobs) house_.wait(state, job);
  EXPECT_EQ(counters().prefilled_tokens, 700U + 6 * 4);
}

TEST_F(Resume, AQuestionDoesNotWaitBehindALongReadingAgain) {
  const StateId large = stranger("large", 4);
  const StateId small = stranger("small", 4);
  house_.feed(large, long_text(4000));
  reopen(slow_store());
  controls_.slice_delay_us = 60'000;
  const auto behind = house_.submit(house_.submission(large, JobKind::kAsk, "why?"));
  ASSERT_TRUE(eventually([&] { return counters().prefilled_tokens > 0; }));
  house_.ask(small, "quick?");
  EXPECT_EQ(house_.scheduler().jobs(large)[0].record.status, store::JobStatus::kRunning);
  EXPECT_EQ(house_.wait(large, behind).record.recomputed_tokens, 4000U);
}

TEST_F(Resume, WhatWasGeneratedIsReadAgainOnlyWhereThePathsAreOne) {
  const StateId state = stranger("s", 300);
  house_.go_on(state, long_text(400));
  reopen(slow_store());
  const auto two_paths = house_.ask(state, "why?");
  EXPECT_EQ(two_paths.record.restored_tokens, 700U);
  EXPECT_EQ(two_paths.record.recomputed_tokens, 0U);
  controls_.one_path = true;
  controls_.kernel_class = "fake-one-path";
  house_.reopen();
  const StateId other = stranger("other", 300);
  house_.go_on(other, long_text(400));
  const auto before = house_.ask(other, "why?").text;
  house_.reopen();
  const auto one_path = house_.ask(other, "why?");
  EXPECT_EQ(one_path.record.recomputed_tokens, 700U);
  EXPECT_EQ(one_path.text, before);
}

TEST_F(Resume, AnotherKernelClassIsRestored) {
  const StateId state = stranger("s");
  house_.feed(state, long_text(700));
  controls_.kernel_class = "fake-2";
  reopen(slow_store());
  const auto asked = house_.ask(state, "why?");
  EXPECT_EQ(asked.record.restored_tokens, 700U);
  EXPECT_EQ(asked.record.recomputed_tokens, 0U);
}

// True tokens, other tensors: reading them would give other words.
TEST_F(Resume, WhatWasNotComputedHereIsAlwaysRestored) {
  for (const auto origin : {store::Origin::kImported, store::Origin::kEdited,
                            store::Origin::kPruned, store::Origin::kLossy}) {
    const std::string name(store::name_of(origin));
    const StateId honest = stranger("honest-" + name);
    house_.feed(honest, long_text(200));
    const auto truth = house_.ask(honest, "why?").text;
    auto forged = house_.version(honest);
    const auto block = house_.store().block(forged.blocks[0]);
    ASSERT_TRUE(block);
    store::NewBlock lie{.index = 0, .tokens = block->tokens, .text = block->text};
    for (const auto& segment : block->segments) {
      auto piece = house_.store().read_segment(segment);
      ASSERT_TRUE(piece);
      std::ranges::fill(piece->value, std::uint8_t{7});
      lie.pieces.push_back(*piece);
    }
    auto pin = house_.store().add_block(lie, forged.kv_dtype, forged.codec);
    ASSERT_TRUE(pin);
    const StateId state = stranger(name);
    forged.blocks = {pin->id()};
    forged.origin = origin;
    ASSERT_TRUE(house_.store().write([&](store::WriteTransaction& tx) -> Status {
      KVFS_ASSIGN(const auto id, tx.add_version(forged));
      return tx.set_version(state, id);
    }));
    *pin = {};  // before its store goes
    reopen(slow_store());
    const auto asked = house_.ask(state, "why?");
    EXPECT_EQ(asked.record.restored_tokens, 200U) << name;
    EXPECT_EQ(asked.record.recomputed_tokens, 0U) << name;
    EXPECT_NE(asked.text, truth) << name;
  }
}

TEST_F(Resume, AKnownPrefixIsReadWhereThatIsSooner) {
  house_.feed(house_.make("first"), long_text(1000));
  const auto restored = house_.feed(house_.make("second"), long_text(1000));
  EXPECT_EQ(restored.record.known_tokens, 1000U);
  EXPECT_EQ(restored.record.prefilled_tokens, 0U);
  const StateId third = house_.make("third");
  reopen(slow_store());
  const auto read = house_.feed(third, long_text(1000));
  EXPECT_EQ(read.record.known_tokens, 0U);
  EXPECT_EQ(read.record.prefilled_tokens, 1000U);
  reopen(dear_late_tokens());
  const StateId fourth = house_.make("fourth");
  const auto both = house_.feed(fourth, long_text(1000));
  EXPECT_EQ(both.record.known_tokens, 488U);
  EXPECT_EQ(both.record.prefilled_tokens, 512U);
  EXPECT_EQ(house_.files(third), house_.files(fourth));
}

// --- what is on the device already --------------------------------------------------------------

class Branches : public Resume {
 protected:
  // Two branches of 700 tokens, of which the first 512 are blocks of their parent's 600.
  void SetUp() override {
    parent_ = house_.make("parent", greedy(10));
    house_.feed(parent_, long_text(600));
    for (const std::string name : {"one", "two"}) {
      const StateId branch = house_.make(name, {}, parent_);
      house_.feed(branch, long_text(100, name));
      said_.push_back(house_.ask(branch, "why?").text);
      branches_.push_back(branch);
    }
    EXPECT_NE(said_[0], said_[1]);
  }

  StateId parent_;
  std::vector<StateId> branches_;
  std::vector<std::string> said_;
};

TEST_F(Branches, OnlyWhatTheDeviceLacksIsRestored) {
  house_.reopen();
  EXPECT_EQ(house_.ask(parent_, "why?").record.restored_tokens, 600U);
  for (std::size_t i = 0; i < 2; ++i) {
    const auto asked = house_.ask(branches_[i], "why?");
    EXPECT_EQ(asked.record.restored_tokens, 188U);
    EXPECT_EQ(asked.text, said_[i]);
  }
  EXPECT_EQ(counters().restored_tokens, 600U + 2 * 188);
  EXPECT_EQ(counters().prefilled_tokens, 3 * 4U);
}

TEST_F(Branches, OnlyWhatTheDeviceLacksIsReadAgain) {
  reopen(slow_store());
  EXPECT_EQ(house_.ask(branches_[0], "why?").record.recomputed_tokens, 700U);
  const auto asked = house_.ask(branches_[1], "why?");
  EXPECT_EQ(asked.record.recomputed_tokens, 188U);
  EXPECT_EQ(asked.text, said_[1]);
}

TEST_F(Branches, AskedTogetherTheyBringTheirSharedBlocksOnce) {
  house_.reopen();
  std::vector<std::string> jobs;
  for (const StateId branch : branches_) {
    jobs.push_back(house_.submit(house_.submission(branch, JobKind::kAsk, "why?")));
  }
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(house_.wait(branches_[i], jobs[i]).text, said_[i]);
  }
  EXPECT_EQ(counters().restored_tokens, 700U + 188);
}

TEST_F(Branches, SharedBlocksAreAsMuchUseAfterTheirVersionWasDropped) {
  // The second branch pushes the parent out; its own blocks and those they shared stay.
  controls_.budget_positions = 1500;
  house_.reopen();
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(house_.ask(branches_[0], "why?").text, said_[0]);
    house_.ask(parent_, "why?");
    EXPECT_EQ(house_.ask(branches_[1], "why?").text, said_[1]);
  }
}

// --- what is said of it -------------------------------------------------------------------------

TEST_F(Resume, AJobTellsWhereItsTimeWent) {
  const StateId state = stranger("s", 20);
  house_.feed(state, long_text(700));
  reopen(slow_store());
  controls_.slice_delay_us = 20'000;
  controls_.step_delay_us = 2000;
  const auto asked = house_.ask(state, "why?").record;
  EXPECT_GE(asked.times.recompute, 60U);  // three slices of 300 tokens
  EXPECT_GE(asked.times.read, 20U);
  EXPECT_GE(asked.times.generate, 19 * 2U);
  EXPECT_LT(asked.times.restore, asked.times.recompute);
  const auto& times = asked.times;
  const auto sum = times.restore + times.recompute + times.known + times.read + times.generate;
  EXPECT_LE(sum, asked.milliseconds + 5);  // each is rounded
  EXPECT_GE(sum + times.save + 5, asked.milliseconds);
  const auto line = house_.scheduler().status_text(state);
  EXPECT_THAT(line, HasSubstr(" done 700 recomputed " + std::to_string(times.recompute) +
                              " ms, 4 read (0 known) " + std::to_string(times.read) +
                              " ms, 20 generated (length) "));
  house_.reopen();  // and it is kept
  EXPECT_EQ(house_.store().jobs_of(state)->back().second.times, times);
}

TEST_F(Resume, AJobThatWaitedSaysHowLong) {
  controls_.max_batch = 1;
  controls_.step_delay_us = 5000;
  const StateId state = stranger("s", 100);
  const auto first = house_.submit(house_.submission(state, JobKind::kAsk, "why?"));
  const auto second = house_.submit(house_.submission(state, JobKind::kAsk, "why?"));
  const auto waited = house_.wait(state, second).record.times.queued;
  EXPECT_GT(waited, house_.wait(state, first).record.times.queued);
  EXPECT_GE(waited, 100U);  // of the 500 that the first one took
}

TEST_F(Resume, TheRatesAreMeasuredOnWhatIsDone) {
  controls_.slice_delay_us = 10'000;
  EXPECT_EQ(counters().prefill_tokens_per_second, 0);
  const StateId state = stranger("s");
  house_.feed(state, long_text(600));
  EXPECT_GT(counters().prefill_tokens_per_second, 0);
  EXPECT_LT(counters().prefill_tokens_per_second, 30'000);  // 300 tokens in 10 ms
  EXPECT_EQ(counters().restore_bytes_per_second, 0);
  house_.reopen();
  house_.ask(state, "why?");
  EXPECT_GT(counters().restore_bytes_per_second, 0);
}

}  // namespace
}  // namespace kvfs::sched::test
