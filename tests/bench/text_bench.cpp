// Tokenizing and detokenizing English, code and hostile text with a model file's tokenizer and
// with small ones of every kind, in MB/s; "line" is ten megabytes of one letter.
//   bench_text [--benchmark_filter=…]    (KVFS_MODEL names another model file)
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include "engine/text/tokenizer.h"

namespace kvfs::text {
namespace {

constexpr std::size_t kBytes = 1'000'000;

std::string repeated(std::string_view part) {
  std::string text;
  while (text.size() < kBytes) text += part;
  return text;
}

std::string english() {
  return repeated(
      "The harbour lights came on one after another, and the boats turned home. It's often said "
      "that "
      "nobody reads a manual; we've found they'd rather ask, and that's fine. Rain fell for eleven "
      "days, "
      "and on the twelfth the river was in the kitchen. Internationalization is a long word; "
      "antidisestablishmentarianism is longer. In 1969 a computer with 4 KB of memory went to the "
      "Moon.\n\n");
}

std::string code() {
  return repeated(
      "for (std::size_t i = 0; i < count; ++i) {\n    if (values[i] != nullptr && "
      "values[i]->size() > 16) {\n"
      "        total += values[i]->size() * sizeof(double);  // padded\n    }\n}\n\n");
}

void encode(benchmark::State& state, const Tokenizer& tokenizer, const std::string& text) {
  std::size_t tokens = 0;
  for (auto _ : state) tokens = tokenizer.encode(text, SpecialText::kAsText).size();
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(text.size()));
  state.counters["tokens"] = static_cast<double>(tokens);
}

void decode(benchmark::State& state, const Tokenizer& tokenizer, const std::string& text) {
  const auto ids = tokenizer.encode(text, SpecialText::kAsText);
  for (auto _ : state) benchmark::DoNotOptimize(tokenizer.decode(ids));
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(text.size()));
}

void load(benchmark::State& state, const container::GgufFile& file) {
  for (auto _ : state) benchmark::DoNotOptimize(load_tokenizer(file));
}

int run(int argc, char** argv) {
  const char* path = std::getenv("KVFS_MODEL");
  const auto file = container::GgufFile::open(
      path ? path : std::string(KVFS_DEPS_DIR) + "/models/SmolLM2-135M-Instruct.Q4_1.gguf");
  if (!file) return std::fprintf(stderr, "%s\n", file.error().message().c_str()), 1;
  const auto tokenizer = load_tokenizer(**file);
  if (!tokenizer) return std::fprintf(stderr, "%s\n", tokenizer.error().message().c_str()), 1;
  const auto add = [](const char* name, auto function) {
    benchmark::RegisterBenchmark(name, function)->Unit(benchmark::kMillisecond);
  };
  add("load", [&](benchmark::State& state) { load(state, **file); });
  for (const auto& [name, text] : {std::pair("english", english()), std::pair("code", code()),
                                   std::pair("line", std::string(10 * kBytes, 'a')),
                                   std::pair("emoji", repeated("😀👩‍👩‍👧‍👦"))}) {
    add((std::string("encode ") + name).c_str(),
        [&tokenizer, text](benchmark::State& state) { encode(state, **tokenizer, text); });
  }
  add("decode english",
      [&, text = english()](benchmark::State& state) { decode(state, **tokenizer, text); });
  // Small tokenizers of every kind.
  std::vector<std::unique_ptr<Tokenizer>> kinds;
  for (const char* kind : {"byte_level", "split_nfc", "llama_like", "words_unk", "unigram",
                           "unigram_first", "spm_bpe", "spm_unigram"}) {
    auto loaded = load_tokenizer(std::filesystem::path(KVFS_REPO_DIR) /
                                 "tests/engine/text/tokenizers" / kind);
    if (!loaded) return std::fprintf(stderr, "%s\n", loaded.error().message().c_str()), 1;
    kinds.push_back(*std::move(loaded));
    for (const auto& [name, text] :
         {std::pair("english", english()), std::pair("line", std::string(10 * kBytes, 'a'))}) {
      add((std::string(kind) + " " + name).c_str(),
          [&one = *kinds.back(), text](benchmark::State& state) { encode(state, one, text); });
    }
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace
}  // namespace kvfs::text

int main(int argc, char** argv) { return kvfs::text::run(argc, argv); }
