// A model's perplexity on the ids of a golden, beside what transformers says of the same ids
// (tests/bench/perplexity_oracle.py).
#pragma once

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <cstddef>
#include <fstream>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include "engine/model/model.h"

namespace kvfs::model::testing {

// How far a mode may be from transformers.
constexpr double allowed_share(Compute compute) {
  return compute == Compute::kReference ? 0.005 : 0.015;
}

struct PerplexityGolden {
  std::vector<TokenId> ids;
  std::vector<TokenId> argmax;  // after each id
  double perplexity = 0;

  static PerplexityGolden read(const std::string& path) {
    std::ifstream file(path);
    std::stringstream text;
    text << file.rdbuf();
    const boost::json::value json = boost::json::parse(text.str());
    PerplexityGolden out;
    for (const auto& id : json.at("ids").as_array()) out.ids.push_back(id.to_number<TokenId>());
    for (const auto& id : json.at("argmax").as_array())
      out.argmax.push_back(id.to_number<TokenId>());
    out.perplexity = json.at("perplexity").to_number<double>();
    return out;
  }
};

struct Measured {
  double perplexity = 0;
  double agreement = 0;  // share of positions with the golden's best next token
};

// −log of the probability that the logits give to a token.
inline double surprise(std::span<const float> logits, TokenId token) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float x : logits) sum += std::exp(static_cast<double>(x) - top);
  return top + std::log(sum) - static_cast<double>(logits[static_cast<std::size_t>(token)]);
}

// Reads the ids in slices: each is judged by the logits after the one before it.
inline Result<Measured> measure_perplexity(Model& model, const PerplexityGolden& golden) {
  constexpr std::size_t kSlice = 64;
  const auto vocab = static_cast<std::size_t>(model.info().vocab_size);
  const std::vector<TokenId>& ids = golden.ids;
  const std::size_t steps = ids.size() - 1;
  const auto sequence = model.new_sequence();
  std::vector<float> logits;
  double nll = 0;
  std::size_t agreed = 0;
  for (std::size_t first = 0; first < steps; first += kSlice) {
    const std::size_t count = std::min(kSlice, steps - first);
    logits.resize(count * vocab);
    KVFS_TRY(model.prefill(*sequence, std::span(ids).subspan(first, count), logits));
    for (std::size_t i = 0; i < count; ++i) {
      const auto row = std::span(logits).subspan(i * vocab, vocab);
      const auto best = std::max_element(row.begin(), row.end()) - row.begin();
      agreed += best == golden.argmax[first + i] ? 1U : 0U;
      nll += surprise(row, ids[first + i + 1]);
    }
  }
  const auto share = static_cast<double>(steps);
  return Measured{std::exp(nll / share), static_cast<double>(agreed) / share};
}

}  // namespace kvfs::model::testing
