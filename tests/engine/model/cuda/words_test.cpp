// The right words, against what transformers gives from the same weights and ids
// (goldens/words.json).
#include <boost/json.hpp>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>

#include "tests/engine/model/cuda/loaded_model.h"

namespace kvfs::model::cuda {
namespace {

const boost::json::object& goldens() {
  static const boost::json::value all = [] {
    const auto path = source_file("tests/engine/model/goldens/words.json");
    std::ifstream file(path);
    if (!file)
      throw std::runtime_error(path.string() +
                               " is missing: set KVFS_SOURCE_DIR to the repository");
    std::stringstream text;
    text << file.rdbuf();
    return boost::json::parse(text.str());
  }();
  return all.as_object();
}

std::vector<TokenId> ids(const boost::json::value& array) {
  return boost::json::value_to<std::vector<TokenId>>(array);
}

TokenId best(std::span<const float> logits) {
  return static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

// −log of the probability that the logits give to a token.
double surprise(std::span<const float> logits, TokenId token) {
  const double most = *std::max_element(logits.begin(), logits.end());
  double sum = 0.0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - most);
  return std::log(sum) + most - static_cast<double>(logits[static_cast<std::size_t>(token)]);
}

class CudaWords : public CudaModelTest {
 protected:
  struct Verdict {
    double agreement = 0.0;  // share of positions with the golden's best next token
    double perplexity = 0.0;
  };
  // Of the English text, token by token, each read or each generated.
  static Verdict judge(Compute compute, bool generated) {
    const boost::json::object& english = goldens().at("english").as_object();
    const std::vector<TokenId> text = ids(english.at("ids"));
    const std::vector<TokenId> argmax = ids(english.at("argmax"));
    Model& on = model(compute);
    const auto sequence = on.new_sequence();
    double nll = 0.0;
    int agreed = 0;
    for (std::size_t i = 0; i < text.size(); ++i) {
      const auto logits =
          generated ? generate(on, *sequence, text[i]) : read(on, *sequence, {&text[i], 1});
      agreed += best(logits) == argmax[i] ? 1 : 0;
      if (i + 1 < text.size()) nll += surprise(logits, text[i + 1]);
    }
    return {.agreement = agreed / static_cast<double>(text.size()),
            .perplexity = std::exp(nll / static_cast<double>(text.size() - 1))};
  }
  static double golden_perplexity() {
    const boost::json::object& english = goldens().at("english").as_object();
    return std::exp(english.at("nll").to_number<double>() /
                    static_cast<double>(english.at("ids").as_array().size() - 1));
  }
};

TEST_F(CudaWords, ReferenceModeContinuesAsTransformersDoes) {
  Model& reference = model(Compute::kReference);
  const boost::json::array& all = goldens().at("continuations").as_array();
  ASSERT_GE(all.size(), 5U);
  for (const boost::json::value& each : all) {
    const boost::json::object& golden = each.as_object();
    const std::vector<TokenId> expected = ids(golden.at("tokens"));
    ASSERT_EQ(expected.size(), 64U);
    const auto sequence = reference.new_sequence();
    auto logits = read(reference, *sequence, ids(golden.at("ids")));
    std::vector<TokenId> tokens;
    while (tokens.size() < expected.size()) {
      tokens.push_back(best(logits));
      logits = generate(reference, *sequence, tokens.back());
    }
    EXPECT_EQ(tokens, expected) << golden.at("prompt").as_string();
  }
}

TEST_F(CudaWords, ReferenceModeReadsEnglishAsTransformersDoes) {
  for (const bool generated : {false, true}) {
    const Verdict verdict = judge(Compute::kReference, generated);
    EXPECT_GE(verdict.agreement, 0.998);
    EXPECT_NEAR(verdict.perplexity / golden_perplexity(), 1.0, 1e-4);
  }
}

TEST_F(CudaWords, FastModeStaysCloseToTheReference) {
  for (const bool generated : {false, true}) {
    const Verdict verdict = judge(Compute::kFast, generated);
    const std::string path = generated ? "generated" : "read";
    RecordProperty("agreement_" + path, std::to_string(verdict.agreement));
    RecordProperty("perplexity_ratio_" + path,
                   std::to_string(verdict.perplexity / golden_perplexity()));
    std::printf("fast, %s: agreement %.4f, perplexity × %.5f of the reference's\n", path.c_str(),
                verdict.agreement, verdict.perplexity / golden_perplexity());
    EXPECT_GE(verdict.agreement, 0.97) << path;
    EXPECT_NEAR(verdict.perplexity / golden_perplexity(), 1.0, 0.01) << path;
  }
}

}  // namespace
}  // namespace kvfs::model::cuda
