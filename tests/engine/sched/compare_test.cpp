// Comparing on the real model, by its numbers: against computing them by hand on the model itself,
// against what asking the state says, and by what is left of it.
#include "engine/sched/compare.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <condition_variable>
#include <mutex>

#include "engine/model/model.h"
#include "engine/prune/methods.h"
#include "engine/sched/divergence.h"
#include "tests/engine/sched/real_house.h"

namespace kvfs::sched::test {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

// What is told of a comparison.
class Told {
 public:
  ComparisonLink::Tell tell() {
    return [this](ComparisonEvent event) {
      const std::lock_guard lock(mutex_);
      if (std::holds_alternative<ComparisonProgress>(event)) return;
      events_.push_back(std::move(event));
      changed_.notify_all();
    };
  }
  template <class Event>
  std::vector<Event> all() const {
    const std::lock_guard lock(mutex_);
    std::vector<Event> out;
    for (const auto& event : events_)
      if (const auto* one = std::get_if<Event>(&event)) out.push_back(*one);
    return out;
  }
  template <class Event>
  bool wait(std::size_t count = 1) const {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(100), [&] {
      return static_cast<std::size_t>(std::ranges::count_if(events_, [](const auto& event) {
               return std::holds_alternative<Event>(event);
             })) >= count;
    });
  }

 private:
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::vector<ComparisonEvent> events_;
};

std::string story() {
  std::string text;
  for (int i = 0; i < 8; ++i) {
    text += " Night " + std::to_string(i) + ": the keeper saw " + std::to_string(i * 37 % 11) +
            " stars fall behind the hill, and wrote it down.";
  }
  return text;
}

class Compared : public RealHouse {
 protected:
  StateId fed(const std::string& name, const ParamMap& params = raw(10)) {
    const StateId state = house_->make(name, params);
    house_->feed(state, story());
    return state;
  }
  std::shared_ptr<ComparisonLink> begin(StateId state, std::vector<std::string> methods, Told& told,
                                        PruneWhen when = PruneWhen::kAuto) {
    const auto made = house_->scheduler().compare(
        {.state = state, .methods = std::move(methods), .when = when}, told.tell());
    if (!made) throw std::runtime_error(made.error().message());
    return made->link;
  }
  std::vector<MethodResult> compare(StateId state, std::vector<std::string> methods,
                                    const std::string& prompt = " Then",
                                    PruneWhen when = PruneWhen::kAuto) {
    Told told;
    const auto link = begin(state, std::move(methods), told, when);
    EXPECT_TRUE(link->say(prompt));
    link->end();
    EXPECT_TRUE(told.wait<ComparisonOver>());
    for (const auto& over : told.all<ComparisonOver>())
      EXPECT_FALSE(over.error) << over.error->message();
    return told.all<MethodResult>();
  }
};

TEST_F(Compared, WhatKeepsEverythingIsFullBitForBit) {
  const StateId state = fed("all");
  const auto results = compare(state, {"keep_last n=100000", "full",
                                       "pyramid bottom=9000 top=9000 window=16 start=1 "
                                       "refresh=2"});
  ASSERT_THAT(results, SizeIs(3));
  EXPECT_EQ(results[0].words, "full");
  const MethodResult& full = results[0];
  EXPECT_THAT(full.kl, SizeIs(full.tokens));
  for (const MethodResult& result : results) {
    ASSERT_FALSE(result.error) << result.error->message();
    EXPECT_THAT(result.kl, Each(0.0F)) << result.words;
    EXPECT_THAT(result.kl, SizeIs(full.tokens));
    EXPECT_EQ(result.perplexity, full.perplexity) << result.words;
    EXPECT_EQ(result.text, full.text);
    EXPECT_EQ(result.lengths, full.lengths);
    EXPECT_EQ(result.retention, 1);
    EXPECT_FALSE(result.differs);
  }
  EXPECT_EQ(results[2].refreshes, 4U);  // of ten tokens the last one is not computed
}

TEST_F(Compared, TheFullPerplexityIsThatOfTheReplysLogProbabilities) {
  const StateId state = fed("asked");
  const MethodResult full = compare(state, {"full"}).at(0);
  ParamMap with = raw(10);
  with["logprobs"] = "1";
  const Outcome asked = house_->ask(state, " Then", with);
  EXPECT_EQ(full.text, asked.text);
  EXPECT_EQ(full.tokens, asked.record.generated_tokens);
  const auto reply = house_->scheduler().reply(state, asked.record.name);
  double sum = 0;
  const auto logprobs = (*reply)->logprobs(0);
  for (const auto& each : logprobs) sum += static_cast<double>(each.token.logprob);
  ASSERT_THAT(logprobs, SizeIs(full.tokens));
  EXPECT_NEAR(full.perplexity, std::exp(-sum / static_cast<double>(full.tokens)), 1e-4);
}

// The same again, by hand, on the model itself: keep_last needs no scores, so what stays is known.
TEST_F(Compared, KlAndPerplexityAreWhatTheModelItselfGives) {
  constexpr int kLast = 40, kSinks = 4;
  const StateId state = fed("by-hand");
  const auto results = compare(state, {"keep_last n=40 sinks=4"});
  ASSERT_THAT(results, SizeIs(2));
  const MethodResult& result = results[1];
  ASSERT_FALSE(result.error);

  const model::ModelCard& card = **house_->catalog().card("");
  const auto model =
      *model::load_model(card, {.device = {.kind = model::DeviceChoice::Kind::kCpu}, .threads = 2});
  const auto vocab = static_cast<std::size_t>(model->info().vocab_size);
  const auto ids = card.tokenizer->encode(story(), text::SpecialText::kAsText);
  const text::TextPart part{" Then", text::SpecialText::kAsText};
  const auto prompt = card.tokenizer->encode_after(ids, {&part, 1});
  auto full = model->new_sequence();
  ASSERT_TRUE(model->prefill(*full, ids, {}));
  auto pruned = model->fork(*full);
  prune::Kept kept;
  const auto count = static_cast<std::int32_t>(ids.size());
  for (const LayerShape& layer : model->info().layers) {
    prune::KeptEntries entries;
    for (std::int32_t i = 0; i < count; ++i)
      if (i < kSinks || i >= count - kLast) entries.push_back(i);
    kept.emplace_back(layer.kv_heads, entries);
  }
  ASSERT_TRUE(model->prune(*pruned, kept));
  std::vector<float> of_full(vocab), of_pruned(vocab);
  ASSERT_TRUE(model->prefill(*full, prompt, of_full));
  ASSERT_TRUE(model->prefill(*pruned, prompt, of_pruned));
  double surprise = 0;
  std::vector<float> kl;
  for (int step = 0; step < 10; ++step) {
    const auto best = static_cast<TokenId>(std::ranges::max_element(of_full) - of_full.begin());
    double sums[2] = {0, 0};
    for (std::size_t i = 0; i < vocab; ++i) {
      sums[0] += std::exp(static_cast<double>(of_full[i]));
      sums[1] += std::exp(static_cast<double>(of_pruned[i]));
    }
    double sum = 0;
    for (std::size_t i = 0; i < vocab; ++i) {
      const double p = std::exp(static_cast<double>(of_full[i])) / sums[0];
      const double q = std::exp(static_cast<double>(of_pruned[i])) / sums[1];
      sum += p * std::log(p / q);
    }
    kl.push_back(static_cast<float>(sum));
    const auto at = static_cast<std::size_t>(best);
    surprise -= std::log(std::exp(static_cast<double>(of_pruned[at])) / sums[1]);
    model::DecodeItem items[] = {{full.get(), best, of_full}, {pruned.get(), best, of_pruned}};
    ASSERT_TRUE(model->decode(items));
  }
  ASSERT_THAT(result.kl, SizeIs(kl.size()));
  for (std::size_t i = 0; i < kl.size(); ++i) EXPECT_NEAR(result.kl[i], kl[i], 1e-5F) << i;
  EXPECT_GT(result.mean_kl, 1e-4);
  EXPECT_NEAR(result.perplexity, std::exp(surprise / 10), 1e-4);
  const std::uint32_t held = kLast + kSinks + static_cast<std::uint32_t>(prompt.size()) + 10;
  EXPECT_THAT(result.lengths, Each(held));
  EXPECT_THAT(result.budgets, Each(44U));
  EXPECT_NEAR(result.retention, held / static_cast<double>(results[0].lengths[0]), 1e-9);
}

TEST_F(Compared, WhereWordsPartBothGoOnInTheirOwn) {
  const StateId state = fed("parts", raw(24));
  const auto results = compare(state, {"keep_last n=8", "random keep=0.05"});
  ASSERT_THAT(results, SizeIs(3));
  for (const std::size_t i : {std::size_t{1}, std::size_t{2}}) {
    ASSERT_TRUE(results[i].differs) << results[i].text;
    const FirstDifference& differs = *results[i].differs;
    EXPECT_NE(differs.full, differs.own);
    const auto at = results[0].text.find(differs.full);
    ASSERT_NE(at, std::string::npos);
    EXPECT_EQ(results[i].text.substr(0, at), results[0].text.substr(0, at));
    EXPECT_TRUE(results[i].text.substr(at).starts_with(differs.own));
  }
}

TEST_F(Compared, AMethodThatCannotIsRefusedInItsRowAndTheOthersGoOn) {
  const StateId state = fed("refused");
  const auto results = compare(state, {"drop from=100000 to=100010", "keep_last n=50", "knorm"});
  ASSERT_THAT(results, SizeIs(4));
  ASSERT_TRUE(results[1].error);
  EXPECT_THAT(results[1].error->message(), HasSubstr("there is nothing from 100000 on"));
  EXPECT_FALSE(results[2].error);
  EXPECT_FALSE(results[3].error);
}

TEST_F(Compared, InAChatTheFullAnswerEntersEveryHistory) {
  const StateId state = fed("chat");
  Told told;
  const auto link = begin(state, {"keep_last n=100000", "keep_last n=60", "tova keep=0.5"}, told);
  ASSERT_TRUE(link->say(" Then"));
  ASSERT_TRUE(told.wait<ComparisonTurnOver>(1));
  ASSERT_TRUE(link->say(""));  // refused, and the chat goes on
  ASSERT_TRUE(told.wait<ComparisonRefused>());
  ASSERT_TRUE(link->say(" And then"));
  link->end();
  ASSERT_TRUE(told.wait<ComparisonOver>());
  const auto results = told.all<MethodResult>();
  ASSERT_THAT(results, SizeIs(8));
  EXPECT_THAT(results[5].kl, Each(0.0F));
  EXPECT_EQ(results[5].text, results[4].text);
  // What asking twice would say, the first reply remembered.
  EXPECT_EQ(house_->go_on(state, " Then", raw(10)).text, results[0].text);
  EXPECT_EQ(house_->ask(state, " And then", raw(10)).text, results[4].text);
  const auto turns = told.all<ComparisonTurn>();
  ASSERT_THAT(turns, SizeIs(2));
  EXPECT_EQ(turns[1].state_tokens, house_->version(state).n_tokens);
  // Pruned to the last 60 again before the second prompt was read.
  const auto said = static_cast<std::uint32_t>(turns[1].prompt_tokens) + results[4].tokens;
  EXPECT_THAT(results[6].lengths, Each(60U + said));
  // A half of all tokens, not a half of what the first turn left.
  const auto half = prune::Amount{.value = 0.5}.of(static_cast<int>(turns[1].state_tokens));
  EXPECT_EQ(results[7].lengths[0], half + said);
}

TEST_F(Compared, PrunedAfterThePromptTheFirstTokenIsTheFullOnes) {
  const StateId state = house_->make("empty", raw(6));
  const auto results = compare(state, {"snapkv capacity=40 window=8"}, story());
  ASSERT_THAT(results, SizeIs(2));
  ASSERT_FALSE(results[1].error) << results[1].error->message();
  EXPECT_EQ(results[1].kl[0], 0);  // told by the whole prompt's cache
  EXPECT_THAT(results[1].lengths, Each(46U));
  EXPECT_EQ(results[1].window, 8);
}

TEST_F(Compared, EntriesThatAreMovedGoOnFromTheirNewPlaces) {
  const StateId state = fed("moved");
  Told told;
  const auto link =
      begin(state, {"keep_last n=60 positions=compact", "h2o keep=0.5 positions=compact"}, told);
  for (const std::size_t turn : {std::size_t{1}, std::size_t{2}}) {
    ASSERT_TRUE(link->say(" Then"));
    ASSERT_TRUE(told.wait<ComparisonTurnOver>(turn));
  }
  link->leave();
  const auto results = told.all<MethodResult>();
  ASSERT_THAT(results, SizeIs(6));
  const auto said =
      static_cast<std::uint32_t>(told.all<ComparisonTurn>()[0].prompt_tokens) + results[0].tokens;
  for (const std::size_t i : {std::size_t{1}, std::size_t{2}, std::size_t{4}}) {
    ASSERT_FALSE(results[i].error) << results[i].error->message();
    EXPECT_LT(results[i].mean_kl, 5) << results[i].words;
  }
  EXPECT_THAT(results[1].lengths, Each(60U + said));
  // The text cannot be read again into places that its tokens have left.
  ASSERT_TRUE(results[5].error);
  EXPECT_THAT(results[5].error->message(), HasSubstr("positions=compact"));
}

TEST_F(Compared, NothingIsLeftOfIt) {
  const StateId state = fed("left");
  house_->ask(state, " Then");
  const auto files = house_->files(state);
  const auto jobs = house_->scheduler().jobs(state).size();
  const auto rows = house_->store().jobs()->size();
  const auto kv = house_->scheduler().counters().kv_bytes;
  EXPECT_THAT(compare(state, {}), SizeIs(6));  // the default ones
  Told told;
  {  // nobody listens any more, in the middle of it
    const auto link = begin(state, {"h2o keep=0.5", "kvzip keep=0.5"}, told);
    ASSERT_TRUE(link->say(" Then"));
    ASSERT_TRUE(told.wait<MethodResult>(1));
    link->leave();
  }
  EXPECT_TRUE(eventually([&] { return house_->scheduler().counters().kv_bytes == kv; }));
  EXPECT_THAT(told.all<ComparisonOver>(), SizeIs(0));
  EXPECT_EQ(house_->files(state), files);
  EXPECT_EQ(house_->scheduler().jobs(state).size(), jobs);
  EXPECT_EQ(house_->store().jobs()->size(), rows);
}

TEST_F(Compared, OthersAreAnsweredMeanwhile) {
  const StateId state = fed("busy"), other = fed("other", raw(3));
  Told told;
  const auto link = begin(state, {"kvzip keep=0.5", "expected keep=0.5"}, told);
  ASSERT_TRUE(link->say(" Then"));
  link->end();
  EXPECT_EQ(house_->ask(other, " Then").record.status, store::JobStatus::kDone);
  EXPECT_THAT(told.all<ComparisonOver>(), SizeIs(0));
  ASSERT_TRUE(told.wait<ComparisonOver>());
}

TEST_F(Compared, WrongWordsAreRefusedAtOnce) {
  const StateId state = fed("wrong");
  const auto refusal = [&](ComparisonRequest request) {
    const auto made = house_->scheduler().compare(std::move(request), [](ComparisonEvent) {});
    return made ? "accepted" : made.error().message();
  };
  EXPECT_THAT(refusal({.state = state, .methods = {"full", "best"}}),
              HasSubstr("no such method; take one of keep_last, pyramid"));
  EXPECT_THAT(refusal({.state = state, .methods = {"snapkv capacity=10 window=20"}}),
              HasSubstr("window=20"));
  EXPECT_THAT(refusal({.state = state, .methods = {""}}), HasSubstr("a method without words"));
  EXPECT_THAT(refusal({.state = state, .prompt = ""}), HasSubstr("it is empty"));
  EXPECT_THAT(refusal({.state = state, .overrides = {{"prune", "knorm keep=5"}}}),
              HasSubstr("name the methods"));
  EXPECT_THAT(refusal({.state = state, .overrides = {{"model", "nobody"}}}), HasSubstr("nobody"));
  EXPECT_THAT(refusal({.state = StateId(987654)}), HasSubstr("state"));
  EXPECT_THAT(refusal({.state = state, .methods = std::vector<std::string>(40, "knorm")}),
              HasSubstr("40 methods are named"));
}

}  // namespace
}  // namespace kvfs::sched::test
