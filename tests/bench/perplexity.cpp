// Perplexity of a model on token ids, in both modes, beside what transformers says of the same ids.
//
//   bench_perplexity MODEL IDS.json [fast|reference|both] [THREADS]
//
// IDS.json is what perplexity_oracle.py writes: "ids", "nll" (natural, summed over the tokens after
// the first) and "argmax" after each.
#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

#include "engine/model/model.h"

namespace {

using namespace kvfs;
using namespace kvfs::model;

struct Text {
  std::vector<TokenId> ids;
  std::vector<TokenId> argmax;
  double nll = 0;
};

Text read_text(const char* path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  const boost::json::value json = boost::json::parse(text.str());
  Text out;
  for (const auto& id : json.at("ids").as_array()) out.ids.push_back(id.to_number<TokenId>());
  for (const auto& id : json.at("argmax").as_array()) out.argmax.push_back(id.to_number<TokenId>());
  out.nll = json.at("nll").to_number<double>();
  return out;
}

double nll_of(const std::vector<float>& logits, TokenId token) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float x : logits) sum += std::exp(static_cast<double>(x) - top);
  return top + std::log(sum) - static_cast<double>(logits[static_cast<std::size_t>(token)]);
}

Status measure(const char* path, const Text& text, Compute compute, int threads) {
  const DeviceChoice cpu{.kind = DeviceChoice::Kind::kCpu};
  KVFS_ASSIGN(const auto card, describe_model(path, compute, cpu, {}));
  KVFS_ASSIGN(const auto model,
              load_model(*card, {.device = cpu, .compute = compute, .threads = threads}));
  const auto sequence = model->new_sequence();
  std::vector<float> logits(static_cast<std::size_t>(model->info().vocab_size));
  double nll = 0;
  std::size_t agreed = 0;
  for (std::size_t i = 0; i + 1 < text.ids.size(); ++i) {
    DecodeItem item{sequence.get(), text.ids[i], logits};
    KVFS_TRY(model->decode({&item, 1}));
    const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
    agreed += best == text.argmax[i] ? 1 : 0;
    nll += nll_of(logits, text.ids[i + 1]);
  }
  const auto steps = static_cast<double>(text.ids.size() - 1);
  std::printf("%-15s perplexity %.4f, transformers %.4f, %+.3f %%; the same best token %.2f %%\n",
              model->info().kernel_class.c_str(), std::exp(nll / steps), std::exp(text.nll / steps),
              100 * (std::exp((nll - text.nll) / steps) - 1),
              100 * static_cast<double>(agreed) / steps);
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr,
                 "usage: bench_perplexity MODEL IDS.json [fast|reference|both] [THREADS]\n");
    return 2;
  }
  const Text text = read_text(argv[2]);
  const std::string mode = argc > 3 ? argv[3] : "both";
  const int threads = argc > 4 ? std::atoi(argv[4]) : 0;
  for (const Compute compute : {Compute::kFast, Compute::kReference}) {
    if (mode == (compute == Compute::kFast ? "reference" : "fast")) continue;
    if (const Status done = measure(argv[1], text, compute, threads); !done) {
      std::fprintf(stderr, "%s\n", done.error().message().c_str());
      return 1;
    }
  }
  return 0;
}
