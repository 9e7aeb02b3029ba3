// Speed of a model: prefill of 2,048 tokens, decode at 0 and at 2,048 tokens of context, alone and
// on eight forks at once, a question of ten tokens on a fork, both modes.
//
//   bench_model [MODEL.gguf] [fast|reference|both|pruned] [threads] [tokens]
//
// pruned: decode at 8,000 tokens beside the same pruned to 10 %, what a refresh while generating
// costs, and what choosing and pruning take beside what a method reads again; fast kernels. With
// one thread its times are those of this thread's CPU, which other work does not change much.
//
// Prints one JSON object a mode. A plain main, not Google Benchmark: each figure is one long run
// whose state (2,048 tokens) is dear.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "engine/model/model.h"
#include "engine/model/pruning.h"
#include "engine/prune/choose.h"

namespace {

using kvfs::TokenId;
using kvfs::model::Compute;
using kvfs::model::Model;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

int complain(const kvfs::Error& error) {
  std::fprintf(stderr, "bench_model: %s\n", error.message().c_str());
  return 1;
}

std::vector<TokenId> some_tokens(std::size_t count, std::int32_t vocab) {
  std::vector<TokenId> tokens(count);
  std::uint32_t state = 1;
  for (TokenId& token : tokens) {
    state = state * 1664525U + 1013904223U;
    token = static_cast<TokenId>((state >> 8) % static_cast<std::uint32_t>(vocab));
  }
  return tokens;
}

// What other guests of the machine leave of its cores: the mean speed of a chain of additions on
// each thread, as a share of the best that a moment of it reached.
double share_of_cores(int threads) {
  std::atomic<double> best = 0.0;
  std::atomic<double> mean = 0.0;
  std::vector<std::jthread> running;
  for (int i = 0; i < threads; ++i) {
    running.emplace_back([&] {
      double fastest = 0.0;
      double chains = 0.0;
      constexpr int kLinks = 20'000;
      const auto start = Clock::now();
      while (seconds_since(start) < 0.3) {
        const auto begin = Clock::now();
        std::uint64_t x = 1;
        for (int link = 0; link < kLinks; ++link) asm volatile("" : "+r"(x += 3));
        fastest = std::max(fastest, kLinks / seconds_since(begin));
        ++chains;
      }
      mean += chains * kLinks / seconds_since(start);
      double seen = best;
      while (seen < fastest && !best.compare_exchange_weak(seen, fastest)) {
      }
    });
  }
  running.clear();
  return mean / threads / best;
}

kvfs::Result<double> decode_rate(Model& model, kvfs::model::Sequence& sequence, int tokens) {
  std::vector<float> logits(static_cast<std::size_t>(model.info().vocab_size));
  const auto start = Clock::now();
  for (int i = 0; i < tokens; ++i) {
    kvfs::model::DecodeItem item{&sequence, static_cast<TokenId>(100 + i), logits};
    KVFS_TRY(model.decode({&item, 1}));
  }
  return tokens / seconds_since(start);
}

// Tokens a second of all forks together.
kvfs::Result<double> branches_rate(Model& model, const kvfs::model::Sequence& parent, int steps) {
  constexpr std::size_t kForks = 8;
  std::vector<std::unique_ptr<kvfs::model::Sequence>> forks;
  std::vector<std::vector<float>> logits(
      kForks, std::vector<float>(static_cast<std::size_t>(model.info().vocab_size)));
  for (std::size_t i = 0; i < kForks; ++i) forks.push_back(model.fork(parent));
  const auto start = Clock::now();
  for (int step = 0; step < steps; ++step) {
    std::vector<kvfs::model::DecodeItem> items;
    for (std::size_t i = 0; i < kForks; ++i)
      items.push_back({forks[i].get(), static_cast<TokenId>(100 + 7 * i), logits[i]});
    KVFS_TRY(model.decode(items));
  }
  return static_cast<double>(steps) * kForks / seconds_since(start);
}

// Seconds, the best of some: fork, read ten tokens, drop the fork.
kvfs::Result<double> question(Model& model, const kvfs::model::Sequence& parent) {
  std::vector<float> logits(static_cast<std::size_t>(model.info().vocab_size));
  const std::vector<TokenId> tokens = some_tokens(10, model.info().vocab_size);
  double best = 1e9;
  for (int i = 0; i < 20; ++i) {
    const auto start = Clock::now();
    const auto fork = model.fork(parent);
    KVFS_TRY(model.prefill(*fork, tokens, logits));
    best = std::min(best, seconds_since(start));
  }
  return best;
}

kvfs::Status run(const std::string& path, Compute compute, int threads) {
  constexpr int kContext = 2048;
  KVFS_ASSIGN(const auto card, kvfs::model::read_card(path, compute, {}, {}));
  auto start = Clock::now();
  KVFS_ASSIGN(const auto model,
              kvfs::model::load_model(*card, {.compute = compute, .threads = threads}));
  const double load = seconds_since(start);
  const std::vector<TokenId> tokens = some_tokens(kContext, model->info().vocab_size);
  std::vector<float> logits(static_cast<std::size_t>(model->info().vocab_size));
  const int cores = threads > 0 ? threads : static_cast<int>(std::thread::hardware_concurrency());
  const double share = share_of_cores(cores);

  const auto warm = model->new_sequence();
  KVFS_TRY(model->prefill(*warm, std::span(tokens).first(64), logits));

  const auto sequence = model->new_sequence();
  start = Clock::now();
  KVFS_TRY(model->prefill(*sequence, tokens, logits));
  const double prefill = kContext / seconds_since(start);
  KVFS_ASSIGN(const double asked, question(*model, *sequence));
  KVFS_ASSIGN(const double branches, branches_rate(*model, *sequence, 16));
  const auto empty = model->new_sequence();
  KVFS_ASSIGN(const double at_0, decode_rate(*model, *empty, 64));
  KVFS_ASSIGN(const double at_2048, decode_rate(*model, *sequence, 64));
  std::printf(
      "{\"load, s\": %.3f, \"prefill of 2048, tok/s\": %.1f, \"decode at 0, tok/s\": %.1f, "
      "\"decode at 2048, tok/s\": %.1f, \"8 forks at 2048, tok/s\": %.1f, "
      "\"10 tokens read at 2048, ms\": %.2f, "
      "\"share of the cores that was free\": %.2f}\n",
      load, prefill, at_0, at_2048, branches, 1e3 * asked, share);
  std::fflush(stdout);
  return {};
}

// ---- pruned

using kvfs::model::Sequence;
namespace prune = kvfs::prune;

// Seconds since it began: on the wall, or of this thread's CPU.
class Stopwatch {
 public:
  static inline bool of_cpu = false;
  double seconds() const { return now() - begin_; }

 private:
  static double now() {
    timespec time{};
    clock_gettime(of_cpu ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
  }
  double begin_ = now();
};

// Seconds of one step that generates a token, and of another that refreshes after it.
struct Step {
  double plain = 1e9;
  double refreshing = 1e9;
};

kvfs::Status generate(Model& model, Sequence& sequence, prune::Observation* seen) {
  std::vector<float> logits(static_cast<std::size_t>(model.info().vocab_size));
  kvfs::model::DecodeItem item{&sequence, 100, logits, seen};
  return model.decode({&item, 1});
}

// The best of some rounds: of a few steps each, then one that prunes by the newest query.
kvfs::Result<Step> refresh_cost(Model& model, Sequence& sequence, const prune::Pyramid& rule,
                                int rounds) {
  Step best;
  for (int round = 0; round < rounds; ++round) {
    for (int i = 0; i < rule.refresh; ++i) {
      const Stopwatch watch;
      KVFS_TRY(generate(model, sequence, nullptr));
      best.plain = std::min(best.plain, watch.seconds());
    }
    const Stopwatch watch;
    prune::Observation seen;
    KVFS_TRY(generate(model, sequence, &seen));
    KVFS_ASSIGN(const prune::Kept kept, prune::choose(rule, seen));
    KVFS_TRY(model.prune(sequence, kept));
    best.refreshing = std::min(best.refreshing, watch.seconds());
  }
  return best;
}

kvfs::Result<double> steps_rate(Model& model, Sequence& sequence, int steps) {
  const Stopwatch watch;
  for (int i = 0; i < steps; ++i) KVFS_TRY(generate(model, sequence, nullptr));
  return steps / watch.seconds();
}

// Of two sequences in turn, so that what others take of the machine is taken of both: tokens a
// second, best of the rounds.
kvfs::Result<std::pair<double, double>> rates(Model& model, Sequence& a, Sequence& b) {
  std::pair<double, double> best;
  for (int round = 0; round < 12; ++round) {
    KVFS_ASSIGN(const double of_a, steps_rate(model, a, 6));
    KVFS_ASSIGN(const double of_b, steps_rate(model, b, 6));
    best = {std::max(best.first, of_a), std::max(best.second, of_b)};
  }
  return best;
}

// Seconds beside what has to be read again: to look at what was seen, to choose and to prune.
kvfs::Result<double> pruning_time(Model& model, const Sequence& sequence,
                                  const prune::Method& method, const std::vector<TokenId>& tokens) {
  KVFS_ASSIGN(prune::Plan plan, prune::make_plan(method, tokens, model.info().context_length,
                                                 {{1, 2, 3}, {4, 5}, {6}}));
  KVFS_ASSIGN(const auto observer, model.look_again(sequence, std::move(plan)));
  for (bool all = false; !all;) {
    KVFS_ASSIGN(all, observer->read());
  }
  const Stopwatch watch;
  const auto fork = model.fork(sequence);
  KVFS_ASSIGN(const prune::Observation seen, observer->take());
  KVFS_ASSIGN(const prune::Kept kept, prune::choose(method, seen));
  KVFS_TRY(model.prune(*fork, kept));
  return watch.seconds();
}

kvfs::Status run_pruned(const std::string& path, int threads, int context) {
  Stopwatch::of_cpu = threads == 1;
  KVFS_ASSIGN(const auto card, kvfs::model::describe_model(path, Compute::kFast, {}, {}));
  KVFS_ASSIGN(const auto model, kvfs::model::load_model(*card, {.threads = threads}));
  const std::vector<TokenId> tokens =
      some_tokens(static_cast<std::size_t>(context), model->info().vocab_size);
  const auto full = model->new_sequence();
  KVFS_TRY(model->prefill(*full, tokens, {}));

  const auto pruned = model->fork(*full);
  prune::SnapKv tenth;
  tenth.capacity = context / 10;
  prune::PyramidKv pyramidkv;
  pyramidkv.capacity = tenth.capacity;
  prune::AdaKv adakv;
  adakv.capacity = tenth.capacity;
  const std::vector<std::pair<const char*, prune::Method>> methods = {
      {"keep_last", prune::KeepLast{}}, {"random", prune::Random{}},
      {"knorm", prune::Knorm{}},        {"pyramid", prune::Pyramid{}},
      {"tova", prune::Tova{}},          {"snapkv", tenth},
      {"pyramidkv", pyramidkv},         {"adakv", adakv},
      {"expected", prune::Expected{}},  {"h2o", prune::H2o{}},
      {"kvzip", prune::KvZip{}}};
  std::printf("{\"tokens\": %d", context);
  for (const auto& [name, method] : methods) {
    KVFS_ASSIGN(const double seconds, pruning_time(*model, *full, method, tokens));
    std::printf(", \"%s: choose and prune, ms\": %.0f", name, 1e3 * seconds);
    std::fflush(stdout);
  }
  KVFS_ASSIGN(prune::Plan plan, prune::make_plan(tenth, tokens, model->info().context_length, {}));
  KVFS_ASSIGN(const prune::Kept kept,
              kvfs::model::choose_entries(*model, *pruned, tenth, std::move(plan)));
  KVFS_TRY(model->prune(*pruned, kept));
  KVFS_ASSIGN(const auto both, rates(*model, *full, *pruned));
  std::printf(", \"decode, tok/s\": %.1f, \"decode pruned to 10 %%, tok/s\": %.1f, \"ratio\": %.2f",
              both.first, both.second, both.second / both.first);

  prune::Pyramid rule;
  rule.window = 160;
  rule.bottom = 640;
  rule.refresh = 12;
  const auto chat = model->fork(*full);
  KVFS_ASSIGN(const Step first, refresh_cost(*model, *chat, rule, 1));
  KVFS_ASSIGN(const Step next, refresh_cost(*model, *chat, rule, 8));
  std::printf(
      ", \"first refresh, steps\": %.2f, \"refresh, steps\": %.2f, \"step, ms\": %.2f, "
      "\"share of the cores that was free\": %.2f}\n",
      first.refreshing / first.plain - 1, next.refreshing / next.plain - 1, 1e3 * next.plain,
      share_of_cores(threads > 0 ? threads
                                 : static_cast<int>(std::thread::hardware_concurrency())));
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  const std::string path =
      argc > 1 ? argv[1] : KVFS_DEPS_DIR "/models/SmolLM2-135M-Instruct.Q4_1.gguf";
  const std::string mode = argc > 2 ? argv[2] : "both";
  const int threads = argc > 3 ? std::atoi(argv[3]) : 0;
  if (mode == "pruned") {
    const auto done = run_pruned(path, threads, argc > 4 ? std::atoi(argv[4]) : 8000);
    return done ? 0 : complain(done.error());
  }
  if (mode != "reference") {
    if (auto done = run(path, Compute::kFast, threads); !done) return complain(done.error());
  }
  if (mode != "fast") {
    if (auto done = run(path, Compute::kReference, threads); !done) return complain(done.error());
  }
  return 0;
}
