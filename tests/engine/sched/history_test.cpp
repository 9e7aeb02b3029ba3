// The scheduler on a fake model: same history, same bits; prefixes; restoring.
#include "engine/sched/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/store/write_transaction.h"
#include "tests/engine/sched/house.h"

namespace kvfs::sched::test {
namespace {

using store::JobKind;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(History, FeedTwiceEqualsFeedOnce) {
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

TEST(History, ContinueThenStepEqualsContinue) {
  FakeControls controls;
  House house(controls);
  for (const bool sampled : {false, true}) {
    const std::string suffix = sampled ? "-sampled" : "-greedy";
    ParamMap params{
        {"repeat_penalty", "1.3"}, {"presence_penalty", "0.5"}, {"frequency_penalty", "1.5"}};
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

TEST(History, StepAfterReadingEqualsAContinueOfTheSameText) {
  FakeControls controls;
  House house(controls);
  const StateId whole = house.make("whole", greedy(20));
  const StateId parts = house.make("parts", greedy(20));
  house.go_on(whole, "tell me");
  house.feed(parts, "tell me");
  house.step(parts, 20);
  EXPECT_EQ(house.files(whole), house.files(parts));
}

TEST(History, AskLeavesTheStateAsItWas) {
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

TEST(History, AnAskSaysWhatAContinueWouldSay) {
  FakeControls controls;
  House house(controls);
  const StateId state = house.make("s", kGreedy);
  house.feed(state, "some text");
  const auto asked = house.ask(state, "why?");
  EXPECT_EQ(asked.text, house.go_on(state, "why?").text);
}

TEST(History, ForkContinuesAsTheOriginal) {
  FakeControls controls;
  House house(controls);
  const StateId original = house.make("original", kGreedy);
  house.feed(original, long_text(300));
  const StateId fork = house.make("fork", {}, original);
  house.go_on(original, "and then?");
  house.go_on(fork, "and then?");
  EXPECT_EQ(house.files(original), house.files(fork));
}

TEST(History, ABatchOfFourEqualsFourBatchesOfOne) {
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

TEST(History, GenerationEndsAtTheEndTokenWhichIsKeptAndNotPrinted) {
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

TEST(History, AStopStringCutsTheReplyAndNotTheTokens) {
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

std::vector<model::Logprobs> told(House& house, StateId state, const std::string& job) {
  return house.scheduler().reply(state, job).value()->logprobs(0);
}

TEST(History, LogprobsGoWithTheReplyAndAreKeptWithIt) {
  FakeControls controls;
  controls.ends = true;
  House house(controls);
  const StateId state = house.make("s", {{"temperature", "0"}, {"max_tokens", "500"}});
  const auto plain = house.ask(state, "go");
  EXPECT_TRUE(told(house, state, plain.record.name).empty());
  const auto asked = house.ask(state, "go", {{"logprobs", "3"}});
  EXPECT_EQ(asked.text, plain.text);
  const auto tokens = told(house, state, asked.record.name);
  ASSERT_EQ(tokens.size(), asked.record.generated_tokens);
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    ASSERT_EQ(tokens[i].top.size(), 3U);
    EXPECT_EQ(tokens[i].token, tokens[i].top[0]);  // greedy
    EXPECT_LE(tokens[i].top[1].logprob, tokens[i].top[0].logprob);
    if (i < asked.text.size()) {
      EXPECT_EQ(tokens[i].token.id, static_cast<unsigned char>(asked.text[i]));
    }
  }
  EXPECT_EQ(tokens.back().token.id, kEnd);
  house.reopen();
  EXPECT_EQ(told(house, state, asked.record.name), tokens);
  auto again = house.submission(state, JobKind::kAsk, "go");
  again.name = asked.record.name;
  house.wait(state, house.submit(again));
  EXPECT_TRUE(told(house, state, asked.record.name).empty());
}

TEST(History, LogprobsOfAStopStringAreNotTold) {
  FakeControls controls;
  House house(controls);
  const StateId state = house.make("s", {{"temperature", "0"}, {"logprobs", "1"}});
  const auto whole = house.ask(state, "go").text;
  const auto cut = house.ask(state, "go", {{"stop", whole.substr(10, 3)}});
  const auto tokens = told(house, state, cut.record.name);
  EXPECT_EQ(tokens.size(), cut.text.size());
  EXPECT_LT(tokens.size(), cut.record.generated_tokens);
}

// --- prefixes -----------------------------------------------------------------------------------

TEST(History, PrefixHitsPrefillNothing) {
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

TEST(History, APartialBlockIsFilledFromThePrefixIndex) {
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

TEST(History, PrefixesAreSharedWithinAnOwnerOnly) {
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

TEST(History, GeneratedTokensAreNotTakenForReadOnesWhereTheirBitsDiffer) {
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

TEST(History, ImportedVersionsNeverEnterThePrefixIndex) {
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
  const auto lie_pin = house.store().add_block(lie, forged.kv_dtype, forged.codec);
  ASSERT_TRUE(lie_pin);
  const StateId imported = house.make("imported");
  forged.blocks = {lie_pin->id()};
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

TEST(History, AfterARestartOnlyThePromptIsPrefilled) {
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

TEST(History, StatesTakeTurnsOnADeviceThatHoldsOne) {
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

TEST(History, AnotherKernelClassContinuesAndEndsTheChain) {
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

}  // namespace
}  // namespace kvfs::sched::test
