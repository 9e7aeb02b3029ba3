// The scheduler on the real model: the promises of "same history, same bits", by every byte of kv/.
#include <gtest/gtest.h>

#include <cstdlib>

#include "tests/engine/sched/house.h"

namespace kvfs::sched::test {
namespace {

constexpr const char* kText =
    "The observatory stood on a hill above the town. Every night the keeper wrote down what he had "
    "seen: the phases of the moon, a comet, the slow wandering of the planets. When he died, his "
    "daughter went on with the book, and after her nobody did.";

std::filesystem::path model_path() {
  if (const char* path = std::getenv("KVFS_MODEL")) return path;
  return std::filesystem::path(KVFS_DEPS_DIR) / "models/SmolLM2-135M-Instruct.Q4_1.gguf";
}

// One model for all tests: it takes a second to load.
class RealModel : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    ASSERT_TRUE(std::filesystem::exists(model_path()))
        << "no model at " << model_path() << ": run scripts/setup, or set KVFS_MODEL";
    house_ = std::make_unique<House>(model_path());
  }
  static void TearDownTestSuite() { house_.reset(); }
  static std::unique_ptr<House> house_;

  static ParamMap raw(int max_tokens) {
    return {{"template", "raw"}, {"temperature", "0"}, {"max_tokens", std::to_string(max_tokens)}};
  }
};
std::unique_ptr<House> RealModel::house_;

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
