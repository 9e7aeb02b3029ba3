// The right words: against goldens that transformers gave (goldens/make_word_goldens.py).
#include <boost/json.hpp>
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
    return g;
  }();
  return kGoldens;
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

}  // namespace
}  // namespace kvfs::model::testing
