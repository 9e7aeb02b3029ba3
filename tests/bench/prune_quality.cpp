// Methods of pruning × budgets on a real model and text, as a table in Markdown: what stays, the
// perplexity of the text that follows, the distance of the distributions, planted sentences given
// back, twenty questions asked of one pruned state.
//
//   bench_prune_quality [--model MODEL.gguf] [--context TOKENS] [--methods a,b] [--budgets 0.5,0.2]
//                       [--threads N] [--compute fast|reference] [--text FILE]... [--pictures yes]
//
// --pictures: what each method keeps, drawn, in place of the table; of the first budget.
#include "tests/bench/prune_quality.h"

#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

namespace {

using namespace kvfs;
using namespace kvfs::model;
using namespace kvfs::model::quality;

struct Options {
  std::string model = KVFS_DEPS_DIR "/models/SmolLM2-135M-Instruct.Q4_1.gguf";
  std::string methods =
      "full,keep_last,pyramid,pyramid_mean,pyramidkv,snapkv,adakv,h2o,tova,knorm,expected,kvzip,"
      "random";
  std::string budgets = "0.5,0.2,0.1,0.05";
  std::string text;
  Compute compute = Compute::kFast;
  int threads = 0;
  bool pictures = false;
  Sizes sizes;
};

std::vector<std::string> split(const std::string& words) {
  std::vector<std::string> out;
  std::stringstream in(words);
  for (std::string word; std::getline(in, word, ',');) out.push_back(word);
  return out;
}

void print_row(const std::string& method, const std::string& words, const Quality& q,
               const char* read) {
  std::printf("| %s | %s | %.1f | %.2f | %.3f | %.0f | %.0f | %.0f | %.3f | %.1f | %s | %.0f |\n",
              method.c_str(), words.c_str(), 100 * q.kept, q.perplexity, q.kl, 100 * q.retrieved,
              100 * q.same_replies, 100 * q.same_begin, q.reply_kl, 100 * q.same_next, read,
              1e3 * q.seconds);
  std::fflush(stdout);
}

// Some layers, the top one first; from left to right the positions, a sign the share of them that
// stays, over all heads.
void draw(const std::string& words, const prune::Kept& kept, const prune::Observation& of) {
  constexpr std::size_t kColumns = 56;
  const char* const signs[] = {"·", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  std::printf("%s\n", words.c_str());
  for (int i = 3; i >= 0; --i) {
    const std::size_t layer = (kept.size() - 1) * static_cast<std::size_t>(i) / 3;
    std::vector<double> stay(kColumns);
    std::vector<double> all(kColumns);
    for (std::size_t head = 0; head < kept[layer].size(); ++head) {
      const std::vector<Position>& positions = of[layer].positions[head];
      const auto column = [&](std::size_t entry) { return entry * kColumns / positions.size(); };
      for (std::size_t entry = 0; entry < positions.size(); ++entry) all[column(entry)] += 1;
      for (const std::int32_t entry : kept[layer][head])
        stay[column(static_cast<std::size_t>(entry))] += 1;
    }
    std::printf("layer %2zu  ", layer);
    for (std::size_t c = 0; c < kColumns; ++c) {
      const double share = stay[c] / all[c];
      std::printf("%s", signs[share == 0 ? 0 : 1 + static_cast<int>(std::min(0.999, share) * 8)]);
    }
    std::printf("\n");
  }
  std::printf("\n");
  std::fflush(stdout);
}

Status run(const Options& options) {
  const DeviceChoice cpu{.kind = DeviceChoice::Kind::kCpu};
  KVFS_ASSIGN(const auto card, read_card(options.model, options.compute, cpu, {}));
  KVFS_ASSIGN(
      const auto model,
      load_model(*card, {.device = cpu, .compute = options.compute, .threads = options.threads}));
  std::string text = options.text;
  if (text.empty()) {
    text = file_text(KVFS_REPO_DIR "/tests/data/alice.txt") + "\n" +
           file_text(KVFS_REPO_DIR "/tests/data/alice_further.txt");
  }
  KVFS_ASSIGN(const auto lab, Lab::open(*model, *card, text, options.sizes));
  if (options.pictures) {
    for (const std::string& name : split(options.methods)) {
      if (name == "full") continue;
      const double share = std::atof(split(options.budgets)[0].c_str());
      const std::string words = words_for(name, share, lab->context());
      KVFS_ASSIGN(const prune::Policy policy, prune::parse_policy(words));
      KVFS_ASSIGN(const Lab::Seen seen, lab->look(policy.method));
      KVFS_ASSIGN(const prune::Kept kept, prune::choose(policy.method, seen.raw));
      draw(words, kept, seen.raw);
    }
    return {};
  }
  std::printf("%s, %s, %zu tokens, %zu held out, %zu questions\n\n", model->info().name.c_str(),
              model->info().kernel_class.c_str(), lab->context(), options.sizes.held_out,
              options.sizes.questions);
  std::printf(
      "| method | words | kept, %% | perplexity | KL, nats | planted, %% | same replies, %% | same "
      "beginning, %% | KL along replies | same next token, %% | read again, tokens | choose and "
      "prune, ms |\n"
      "|---|---|---|---|---|---|---|---|---|---|---|---|\n");
  for (const std::string& name : split(options.methods)) {
    if (name == "full") {
      print_row(name, "", lab->full(), "0");
      continue;
    }
    Lab::Seen seen;
    bool looked = false;
    for (const std::string& budget : split(options.budgets)) {
      const std::string words = words_for(name, std::atof(budget.c_str()), lab->context());
      KVFS_ASSIGN(const prune::Policy policy, prune::parse_policy(words));
      if (!looked || prune::window_of(policy.method) > 1) {
        KVFS_ASSIGN(seen, lab->look(policy.method));
      }
      looked = true;
      KVFS_ASSIGN(const Quality quality, lab->measure(policy.method, seen));
      print_row(name, words, quality, std::to_string(seen.tokens / 2).c_str());
    }
  }
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i];
    const std::string value = argv[i + 1];
    if (flag == "--model")
      options.model = value;
    else if (flag == "--context")
      options.sizes.context = std::strtoul(value.c_str(), nullptr, 10);
    else if (flag == "--methods")
      options.methods = value;
    else if (flag == "--budgets")
      options.budgets = value;
    else if (flag == "--threads")
      options.threads = std::atoi(value.c_str());
    else if (flag == "--pictures")
      options.pictures = value == "yes";
    else if (flag == "--text")
      options.text += file_text(value) + "\n\n";
    else if (flag == "--compute")
      options.compute = value == "reference" ? Compute::kReference : Compute::kFast;
    else {
      std::fprintf(stderr, "bench_prune_quality: no flag %s\n", argv[i]);
      return 2;
    }
  }
  if (const Status done = run(options); !done) {
    std::fprintf(stderr, "bench_prune_quality: %s\n", done.error().message().c_str());
    return 1;
  }
  return 0;
}
