// The right words: against goldens that transformers gave (goldens/make_word_goldens.py).
#include <boost/json.hpp>
#include <cmath>
#include <fstream>
#include <sstream>

#include "tests/engine/model/model_fixture.h"

namespace kvfs::model::testing {
namespace {

struct Continuation {
  std::string prompt;
  std::vector<TokenId> ids;
  std::vector<TokenId> tokens;
};
struct Goldens {
  std::vector<Continuation> continuations;
  std::vector<TokenId> english;
  std::vector<TokenId> argmax;
  double nll = 0;
};

std::vector<TokenId> ids_of(const boost::json::value& array) {
  std::vector<TokenId> ids;
  for (const auto& id : array.as_array()) ids.push_back(id.to_number<TokenId>());
  return ids;
}

const Goldens& goldens() {
  static const Goldens kGoldens = [] {
    std::ifstream file(KVFS_REPO_DIR "/tests/engine/model/goldens/words.json");
    std::stringstream text;
    text << file.rdbuf();
    const boost::json::value json = boost::json::parse(text.str());
    Goldens g;
    for (const auto& c : json.at("continuations").as_array()) {
      g.continuations.push_back(
          {std::string(c.at("prompt").as_string()), ids_of(c.at("ids")), ids_of(c.at("tokens"))});
    }
    g.english = ids_of(json.at("english").at("ids"));
    g.argmax = ids_of(json.at("english").at("argmax"));
    g.nll = json.at("english").at("nll").to_number<double>();
    return g;
  }();
  return kGoldens;
}

double nll_of(const Logits& logits, TokenId token) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float x : logits) sum += std::exp(static_cast<double>(x) - top);
  return top + std::log(sum) - static_cast<double>(logits[static_cast<std::size_t>(token)]);
}

TEST(Words, ReferenceModeContinuesAsTransformersDoes) {
  const Loaded loaded = load(model_path(), Compute::kReference, 2);
  ASSERT_TRUE(loaded.model);
  Model& model = *loaded.model;
  ASSERT_GE(goldens().continuations.size(), 6U);
  for (const Continuation& golden : goldens().continuations) {
    const auto sequence = model.new_sequence();
    std::vector<TokenId> tokens{best(read(model, *sequence, golden.ids))};
    while (tokens.size() < golden.tokens.size()) {
      tokens.push_back(best(generate(model, *sequence, tokens.back())));
    }
    EXPECT_EQ(tokens, golden.tokens) << golden.prompt;
  }
}

TEST(Words, FastModeAgreesWithTheReferenceOnEnglish) {
  const Loaded loaded = load(model_path(), Compute::kFast, 2);
  ASSERT_TRUE(loaded.model);
  Model& model = *loaded.model;
  const std::vector<TokenId>& ids = goldens().english;
  ASSERT_GE(ids.size(), 1000U);
  const auto sequence = model.new_sequence();
  int agreed = 0;
  double nll = 0;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const Logits logits = generate(model, *sequence, ids[i]);
    agreed += best(logits) == goldens().argmax[i] ? 1 : 0;
    if (i + 1 < ids.size()) nll += nll_of(logits, ids[i + 1]);
  }
  const double share = agreed / static_cast<double>(ids.size());
  const double steps = static_cast<double>(ids.size() - 1);
  const double perplexity_ratio = std::exp((nll - goldens().nll) / steps);
  RecordProperty("agreement", std::to_string(share));
  RecordProperty("perplexity_ratio", std::to_string(perplexity_ratio));
  std::printf("agreement %.4f, perplexity ratio %.5f\n", share, perplexity_ratio);
  EXPECT_GE(share, 0.97);
  EXPECT_NEAR(perplexity_ratio, 1.0, 0.01);
}

TEST(Words, TheTokenizerGivesTheGoldensIds) {
  auto card = read_card(model_path(), Compute::kFast, {}, {});
  ASSERT_TRUE(card) << card.error().message();
  std::ifstream file(KVFS_REPO_DIR "/tests/data/english.txt");
  std::stringstream text;
  text << file.rdbuf();
  EXPECT_EQ((*card)->tokenizer->encode(text.str(), text::SpecialText::kAsText), goldens().english);
}

}  // namespace
}  // namespace kvfs::model::testing
