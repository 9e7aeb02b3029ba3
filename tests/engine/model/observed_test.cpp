// What methods of pruning that look at the whole text are told, against kvpress's presses on the
// same models (goldens/make_observed_goldens.py), and the choices made from it.
#include <boost/json.hpp>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "engine/model/pruning.h"
#include "engine/prune/choose.h"
#include "tests/engine/model/model_fixture.h"

namespace kvfs::model::testing {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;
using prune::HeadScores;
using prune::Observation;

const fs::path kModels = goldens() / "pruned";

json::value parsed(const fs::path& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return json::parse(text.str());
}

class Observed : public ::testing::TestWithParam<std::string> {
 protected:
  Observed() {
    const json::value of_all = parsed(kModels / GetParam() / "golden.json");
    ids_ = json::value_to<std::vector<TokenId>>(of_all.at("ids"));
    ids_.resize(golden_.at("tokens").to_number<std::size_t>());
    loaded_ = load_described(kModels / GetParam(), Compute::kReference);
  }
  prune::Plan plan(const prune::Method& method) {
    const prune::Repetition how{json::value_to<std::vector<TokenId>>(golden_.at("ask")),
                                json::value_to<std::vector<TokenId>>(golden_.at("ask_on")),
                                json::value_to<std::vector<TokenId>>(golden_.at("answer"))};
    // A context that leaves room for a piece of the goldens' length and what goes before it.
    const auto context =
        static_cast<Position>(ids_.size() + how.ask_on.size() + prune::kTokensBefore +
                              how.answer.size() + golden_.at("piece").to_number<std::size_t>());
    auto made = prune::make_plan(method, ids_, context, how);
    EXPECT_TRUE(made) << (made ? "" : made.error().message());
    return made.value_or(prune::Plan{});
  }
  Observation look(const Sequence& sequence, const prune::Method& method) {
    auto observer = loaded_.model->look_again(sequence, plan(method));
    EXPECT_TRUE(observer) << (observer ? "" : observer.error().message());
    for (bool all = false; observer && !all;) all = (*observer)->read().value_or(true);
    EXPECT_EQ((*observer)->tokens_read(), plan(method).tokens());
    auto seen = (*observer)->take();
    EXPECT_TRUE(seen) << (seen ? "" : seen.error().message());
    return seen.value_or(Observation{});
  }
  std::unique_ptr<Sequence> whole() {
    auto sequence = loaded_.model->new_sequence();
    read(*loaded_.model, *sequence, ids_);
    return sequence;
  }

  const json::value golden_ = parsed(kModels / GetParam() / "observed.json");
  std::vector<TokenId> ids_;
  Loaded loaded_;
};
INSTANTIATE_TEST_SUITE_P(Families, Observed, ::testing::Values("llama", "qwen3", "mistral"),
                         [](const auto& of) { return of.param; });

void expect_near(const HeadScores& got, const HeadScores& wanted, const std::string& where) {
  ASSERT_EQ(got.size(), wanted.size());
  for (std::size_t head = 0; head < got.size(); ++head) {
    ASSERT_EQ(got[head].size(), wanted[head].size());
    for (std::size_t i = 0; i < got[head].size(); ++i) {
      const float x = wanted[head][i];
      EXPECT_NEAR(got[head][i], x, 1e-6 + 5e-4 * std::fabs(x)) << where << " " << head << " " << i;
    }
  }
}

TEST_P(Observed, WhatAllQueriesLookAtIsWhatKvpressSays) {
  const auto sequence = whole();
  const Observation seen = look(*sequence, prune::H2o{});
  for (std::size_t layer = 0; layer < seen.size(); ++layer) {
    expect_near(seen[layer].scores, json::value_to<HeadScores>(golden_.at("h2o").at(layer)),
                "layer " + std::to_string(layer));
  }
}

TEST_P(Observed, WhatIsExpectedOfQueriesToComeIsWhatKvpressSays) {
  const auto sequence = whole();
  const Observation seen = look(*sequence, prune::Expected{});
  prune::Expected method;
  method.keep.value = golden_.at("share").to_number<double>();
  const auto kept = prune::choose(method, seen);
  ASSERT_TRUE(kept);
  for (std::size_t layer = 0; layer < seen.size(); ++layer) {
    const json::value& wanted = golden_.at("expected").at(layer);
    const std::string where = "layer " + std::to_string(layer);
    expect_near(seen[layer].scores, json::value_to<HeadScores>(wanted.at("exponents")), where);
    expect_near(seen[layer].value_norms, json::value_to<HeadScores>(wanted.at("norms")), where);
    EXPECT_EQ((*kept)[layer], json::value_to<prune::LayerKept>(wanted.at("kept"))) << where;
  }
}

TEST_P(Observed, WhatARepetitionLooksAtIsWhatKvpressSays) {
  const auto sequence = whole();
  ASSERT_EQ(plan(prune::KvZip{}).passes.size(), 3U);
  const Observation seen = look(*sequence, prune::KvZip{});
  Observation wanted = seen;
  for (std::size_t layer = 0; layer < seen.size(); ++layer) {
    wanted[layer].scores = json::value_to<HeadScores>(golden_.at("kvzip").at(layer));
    expect_near(seen[layer].scores, wanted[layer].scores, "layer " + std::to_string(layer));
  }
  for (const double share : {0.2, 0.5}) {
    prune::KvZip method;
    method.keep.value = share;
    EXPECT_EQ(prune::choose(method, seen).value(), prune::choose(method, wanted).value()) << share;
  }
}

TEST_P(Observed, EntriesOfAPrunedSequenceAreSeenAsTheyWereBefore) {
  Model& model = *loaded_.model;
  const auto sequence = whole();
  const auto pruned = model.fork(*sequence);
  prune::Random half;
  half.keep.value = 0.5;
  const auto kept = choose_entries(model, *sequence, half, plan(half));
  ASSERT_TRUE(kept);
  ASSERT_TRUE(model.prune(*pruned, *kept));
  for (const prune::Method& method :
       {prune::Method(prune::H2o{}), prune::Method(prune::Expected{})}) {
    const Observation before = look(*sequence, method);
    const Observation after = look(*pruned, method);
    for (std::size_t layer = 0; layer < before.size(); ++layer) {
      EXPECT_EQ(after[layer].positions,
                *model.positions(*pruned, static_cast<std::uint16_t>(layer)));
      for (std::size_t head = 0; head < before[layer].scores.size(); ++head) {
        std::vector<float> wanted;
        for (const std::int32_t i : (*kept)[layer][head / 2])
          wanted.push_back(before[layer].scores[head][static_cast<std::size_t>(i)]);
        EXPECT_EQ(after[layer].scores[head], wanted) << prune::name_of(method);
      }
    }
  }
}

TEST_P(Observed, LookingLeavesTheSequenceAndTheMemoryAsTheyWere) {
  Model& model = *loaded_.model;
  const auto sequence = whole();
  const Bytes before = kv_bytes(model, *sequence);
  const std::uint64_t used = model.kv_bytes_used();
  for (const prune::Method& method : {prune::Method(prune::H2o{}), prune::Method(prune::Expected{}),
                                      prune::Method(prune::KvZip{})}) {
    look(*sequence, method);
    EXPECT_EQ(kv_bytes(model, *sequence), before);
    EXPECT_EQ(model.kv_bytes_used(), used);
  }
}

TEST_P(Observed, TheNumberOfThreadsDoesNotChangeAScore) {
  const Loaded one = load_described(kModels / GetParam(), Compute::kFast, 1);
  const Loaded three = load_described(kModels / GetParam(), Compute::kFast, 3);
  ASSERT_TRUE(one.model && three.model);
  for (const prune::Method& method : {prune::Method(prune::H2o{}), prune::Method(prune::Expected{}),
                                      prune::Method(prune::KvZip{})}) {
    std::vector<Observation> seen;
    for (Model* model : {one.model.get(), three.model.get()}) {
      const auto sequence = model->new_sequence();
      read(*model, *sequence, ids_);
      auto observer = model->look_again(*sequence, plan(method));
      ASSERT_TRUE(observer);
      for (bool all = false; !all;) all = (*observer)->read().value_or(true);
      auto taken = (*observer)->take();
      ASSERT_TRUE(taken);
      seen.push_back(*std::move(taken));
    }
    for (std::size_t layer = 0; layer < seen[0].size(); ++layer)
      EXPECT_EQ(seen[0][layer].scores, seen[1][layer].scores) << prune::name_of(method);
  }
}

TEST_P(Observed, WhatAStepShowsDoesNotDependOnItsCompany) {
  const Loaded fast = load_described(kModels / GetParam(), Compute::kFast, 2);
  ASSERT_TRUE(fast.model);
  Model& model = *fast.model;
  const auto parent = model.new_sequence();
  for (int i = 0; i < 3; ++i) read(model, *parent, ids_);  // pages that branches share
  prune::Random method;
  const auto text = std::vector<TokenId>(3 * ids_.size(), 1);
  const auto kept =
      choose_entries(model, *parent, method, *prune::make_plan(method, text, 1024, {}));
  ASSERT_TRUE(kept);
  for (const bool pruned : {false, true}) {
    if (pruned) {
      ASSERT_TRUE(model.prune(*parent, *kept));
    }
    std::vector<std::unique_ptr<Sequence>> forks;
    std::vector<Logits> logits(3, room(model));
    std::vector<Observation> seen(3);
    std::vector<DecodeItem> items;
    for (std::size_t i = 0; i < 3; ++i) {
      forks.push_back(model.fork(*parent));
      items.push_back(
          {forks[i].get(), static_cast<TokenId>(5 + i), logits[i], i == 1 ? nullptr : &seen[i]});
    }
    ASSERT_TRUE(model.decode(items));
    for (std::size_t i = 0; i < 3; ++i) {
      const auto alone = model.fork(*parent);
      Logits wanted = room(model);
      Observation alone_seen;
      DecodeItem item{alone.get(), static_cast<TokenId>(5 + i), wanted, &alone_seen};
      ASSERT_TRUE(model.decode({&item, 1}));
      EXPECT_EQ(logits[i], wanted);
      EXPECT_EQ(generate(model, *model.fork(*parent), static_cast<TokenId>(5 + i)), wanted);
      for (std::size_t layer = 0; i != 1 && layer < seen[i].size(); ++layer) {
        EXPECT_EQ(seen[i][layer].scores, alone_seen[layer].scores);
        EXPECT_EQ(seen[i][layer].positions, alone_seen[layer].positions);
        for (std::size_t head = 0; head < seen[i][layer].scores.size(); ++head) {
          EXPECT_EQ(seen[i][layer].scores[head].size(), seen[i][layer].positions[head / 2].size());
        }
      }
    }
  }
}

TEST_P(Observed, APlanForAnotherSequenceIsRefused) {
  const auto sequence = whole();
  read(*loaded_.model, *sequence, std::span(ids_).first(1));
  for (const prune::Method& method :
       {prune::Method(prune::Tova{}), prune::Method(prune::H2o{}), prune::Method(prune::Expected{}),
        prune::Method(prune::KvZip{})}) {
    const auto observer = loaded_.model->look_again(*sequence, plan(method));
    ASSERT_FALSE(observer) << prune::name_of(method);
    EXPECT_EQ(observer.error().code, ErrorCode::kInvalid);
  }
}

TEST_P(Observed, AllTokensAtOnceAreSeenAsSliceBySlice) {
  Model& model = *loaded_.model;
  const auto sequence = whole();
  for (const prune::Method& method :
       {prune::Method(prune::H2o{}), prune::Method(prune::Expected{})}) {
    const auto at_once = model.observe(*sequence, prune::needs_of(method), ids_);
    ASSERT_TRUE(at_once) << at_once.error().message();
    const Observation slices = look(*sequence, method);
    for (std::size_t layer = 0; layer < slices.size(); ++layer)
      EXPECT_EQ((*at_once)[layer].scores, slices[layer].scores);
  }
  const auto repeated = model.observe(*sequence, prune::Needs::kReconstruction, ids_);
  ASSERT_FALSE(repeated);
  EXPECT_EQ(repeated.error().code, ErrorCode::kUnsupported);
}

TEST_P(Observed, AChoiceCanBeStoppedWhileItReads) {
  const auto sequence = whole();
  std::int64_t told = 0;
  const auto stopped = choose_entries(*loaded_.model, *sequence, prune::KvZip{},
                                      plan(prune::KvZip{}), [&](std::int64_t tokens) {
                                        told = tokens;
                                        return false;
                                      });
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().code, ErrorCode::kCanceled);
  EXPECT_EQ(told, 84);  // the first repetition's
}

}  // namespace
}  // namespace kvfs::model::testing
