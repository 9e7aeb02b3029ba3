// The scheduler on the real model: the promises of "same history, same bits", by every byte of kv/.
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "tests/engine/sched/real_house.h"

namespace kvfs::sched::test {
namespace {

constexpr const char* kText =
    "The observatory stood on a hill above the town. Every night the keeper wrote down what he had "
    "seen: the phases of the moon, a comet, the slow wandering of the planets. When he died, his "
    "daughter went on with the book, and after her nobody did.";

using RealModel = RealHouse;

TEST_F(RealModel, FeedTwiceEqualsFeedOnce) {
  std::string text;
  for (int i = 0; i < 8; ++i) text += kText + std::string("\n\n");
  const auto cut = text.find(" When", text.size() / 2);  // where the ids concatenate
  const StateId once = house_->make("once", raw(1), {}, 1000);
  const StateId twice = house_->make("twice", raw(1), {}, 1001);  // nothing is known to it
  house_->feed(twice, text.substr(0, cut));
  house_->feed(twice, text.substr(cut));
  EXPECT_EQ(house_->feed(once, text).record.known_tokens, 0U);
  ASSERT_GT(house_->version(once).n_tokens, 300U);
  EXPECT_EQ(house_->text(once), text);
  EXPECT_EQ(house_->files(once), house_->files(twice));
}

TEST_F(RealModel, ContinueThenRestartThenStepEqualsContinue) {
  const StateId whole = house_->make("whole", raw(64));
  const StateId parts = house_->make("parts", raw(64));
  const auto said = house_->go_on(whole, kText);
  house_->go_on(parts, kText, {{"max_tokens", "32"}});
  house_->reopen();
  house_->step(parts, 32);
  EXPECT_EQ(house_->files(whole), house_->files(parts));
  EXPECT_EQ(said.text.empty(), false);
}

TEST_F(RealModel, ForkContinuesAsTheOriginal) {
  const StateId original = house_->make("original", raw(16));
  house_->feed(original, kText);
  const StateId fork = house_->make("fork", {}, original);
  house_->go_on(original, " Then");
  house_->go_on(fork, " Then");
  EXPECT_EQ(house_->files(original), house_->files(fork));
}

TEST_F(RealModel, ABatchOfFourEqualsFourBatchesOfOne) {
  std::vector<StateId> together;
  std::vector<std::string> jobs;
  const std::vector<std::string> prompts{"Once upon a time", kText, "1 2 3 4", "def main():"};
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    together.push_back(house_->make("together" + std::to_string(i), raw(24)));
  }
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    jobs.push_back(
        house_->submit(house_->submission(together[i], store::JobKind::kContinue, prompts[i])));
  }
  for (std::size_t i = 0; i < prompts.size(); ++i) house_->wait(together[i], jobs[i]);
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    const StateId alone = house_->make("alone" + std::to_string(i), raw(24));
    house_->go_on(alone, prompts[i]);
    EXPECT_EQ(house_->files(alone), house_->files(together[i])) << prompts[i];
  }
}

TEST_F(RealModel, WhatWasGeneratedAndIsReadAgainHasTheSameFiles) {
  const StateId parent = house_->make("parent", raw(40), {}, 1002);
  house_->feed(parent, kText);
  const StateId said = house_->make("said", {}, parent, 1002);
  const auto reply = house_->go_on(said, " Then");
  ASSERT_EQ(reply.record.generated_tokens, 40U);
  // In a state of another owner, so that nothing is known; ids that do not tokenize back would
  // make another history.
  const StateId again = house_->make("again", raw(40), {}, 1003);
  house_->feed(again, kText);
  const auto fed = house_->feed(again, " Then" + reply.text);
  EXPECT_EQ(fed.record.known_tokens, 0U);
  ASSERT_EQ(house_->version(again).n_tokens, house_->version(said).n_tokens);
  EXPECT_EQ(house_->files(again), house_->files(said));
}

std::string message(const std::string& role, const std::string& text) {
  return boost::json::serialize(boost::json::object{{"role", role}, {"content", text}});
}

class Resent : public RealModel {
 protected:
  static inline const ParamMap kMessages{
      {"format", "messages"}, {"temperature", "0"}, {"max_tokens", "5"}};

  // Only single letters: ids that their text does not tokenize to.
  static ParamMap in_letters() {
    const auto* card = house_->catalog().card("").value();
    std::string bias;
    for (const char* letter : {"a", "e", "h", "n", "t", " "}) {
      const auto ids = card->tokenizer->encode(letter, text::SpecialText::kAsText);
      bias += (bias.empty() ? R"({")" : R"(,")") + std::to_string(ids[0]) + R"(":100)";
    }
    return {{"logit_bias", bias + "}"}, {"max_tokens", "40"}, {"temperature", "1"}, {"seed", "3"}};
  }
  // A chat of two turns in a state, and the same as a client's messages.
  void talk(StateId state) {
    messages_ = message("system", kText);
    house_->feed(state, kText);
    turn(state, "What did the keeper write down?", in_letters());
    turn(state, "Where was it?", {{"temperature", "0"}, {"max_tokens", "60"}});
  }
  void turn(StateId state, const std::string& question, const ParamMap& params) {
    const auto reply = house_->go_on(state, question, params);
    messages_ += "," + message("user", question) + "," + message("assistant", reply.text);
  }
  std::string with(const std::string& question) const {
    return "[" + messages_ + "," + message("user", question) + "]";
  }
  std::uint64_t prefilled() const { return house_->scheduler().counters().prefilled_tokens; }

  std::string messages_;
};

TEST_F(Resent, AConversationSentToItsStatePrefillsOnlyTheNewTurn) {
  const StateId state = house_->make("talk", {}, {}, 1004);
  talk(state);
  const auto alone =
      house_->ask(state, "Who went on?", {{"temperature", "0"}, {"max_tokens", "5"}});
  const auto before = prefilled();
  const auto whole = house_->ask(state, with("Who went on?"), kMessages);
  EXPECT_EQ(whole.text, alone.text);
  EXPECT_EQ(whole.record.prompt_tokens, alone.record.prompt_tokens);
  EXPECT_EQ(prefilled() - before, alone.record.prompt_tokens);
}

TEST_F(Resent, AConversationSentToAnEmptyStatePrefillsOnlyTheNewTurn) {
  const StateId state = house_->make("talk2", {}, {}, 1005);
  talk(state);
  const auto held = house_->version(state).n_tokens;
  const auto alone =
      house_->ask(state, "Who went on?", {{"temperature", "0"}, {"max_tokens", "5"}});
  const StateId empty = house_->make("empty", {}, {}, 1005);
  for (const bool restarted : {false, true}) {
    if (restarted) house_->reopen();
    const auto before = prefilled();
    const auto whole = house_->ask(empty, with("Who went on?"), kMessages);
    EXPECT_EQ(whole.text, alone.text);
    EXPECT_EQ(whole.record.prompt_tokens, held + alone.record.prompt_tokens);
    EXPECT_EQ(whole.record.known_tokens, held);
    EXPECT_EQ(prefilled() - before, alone.record.prompt_tokens);
  }
  // Kept, it is the state that would have come of going on in the first.
  house_->go_on(empty, with("Who went on?"), kMessages);
  house_->go_on(state, "Who went on?", {{"temperature", "0"}, {"max_tokens", "5"}});
  EXPECT_EQ(house_->files(empty), house_->files(state));
}

TEST_F(Resent, AChangedReplyIsReadAgainAndWhatStandsBeforeItIsNot) {
  const StateId state = house_->make("talk3", {}, {}, 1006);
  talk(state);
  const StateId empty = house_->make("empty3", {}, {}, 1006);
  const auto at = messages_.rfind(",{");
  messages_ = messages_.substr(0, at) + "," + message("assistant", "No.");
  const auto edited = house_->ask(empty, with("Why?"), kMessages);
  EXPECT_GT(edited.record.known_tokens, 100U);
  EXPECT_LT(edited.record.prompt_tokens - edited.record.known_tokens, 40U);
  // A stranger's ids and KV are never taken: the text alone makes the same words.
  const StateId stranger = house_->make("stranger3", {}, {}, 1007);
  EXPECT_EQ(house_->ask(stranger, with("Why?"), kMessages).record.known_tokens, 0U);
}

TEST_F(Resent, NothingOfAnotherOwnersIsFound) {
  const StateId state = house_->make("talk4", {}, {}, 1008);
  talk(state);
  const StateId other = house_->make("other4", {}, {}, 1009);
  const auto asked = house_->ask(other, with("Who went on?"), kMessages);
  EXPECT_EQ(asked.record.known_tokens, 0U);
  // Nor are its ids taken over: the reply was tokenized anew.
  EXPECT_NE(asked.record.prompt_tokens,
            house_->ask(house_->make("mine4", {}, {}, 1008), with("Who went on?"), kMessages)
                .record.prompt_tokens);
}

TEST_F(Resent, AConversationThatDoesNotBeginAsItsStateIsRefused) {
  const StateId state = house_->make("talk5", {}, {}, 1010);
  house_->feed(state, kText);
  const auto what = house_->submission(state, store::JobKind::kAsk,
                                       "[" + message("user", "What?") + "]", kMessages);
  const auto refused = house_->scheduler().submit(what);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message().find("the state does not begin so"), std::string::npos);
}

TEST_F(RealModel, AChatAnswersAndEndsItsTurn) {
  const StateId state = house_->make("chat", {{"temperature", "0"}});
  house_->feed(state, kText);
  const auto before = house_->files(state);
  const auto answer = house_->ask(state, "Where did the observatory stand?\n");
  EXPECT_EQ(answer.record.finish, "stop");
  EXPECT_NE(answer.text.find("hill"), std::string::npos) << answer.text;
  EXPECT_EQ(answer.text.find("<|im_end|>"), std::string::npos);
  EXPECT_EQ(house_->files(state), before);
}

TEST_F(RealModel, AfterARestartOnlyThePromptIsPrefilled) {
  const StateId state = house_->make("resumed", raw(8));
  house_->feed(state, kText);
  const auto before = house_->ask(state, " Then").text;
  const auto tokens = house_->version(state).n_tokens;
  house_->reopen();
  const auto asked = house_->ask(state, " Then");
  EXPECT_EQ(asked.text, before);
  const auto counters = house_->scheduler().counters();
  EXPECT_EQ(counters.prefilled_tokens, asked.record.prompt_tokens);
  EXPECT_EQ(counters.restored_tokens, tokens);
}

}  // namespace
}  // namespace kvfs::sched::test
