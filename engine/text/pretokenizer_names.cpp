// The patterns that `tokenizer.ggml.pre` names: facts about published tokenizers, as their
// tokenizer.json files and llama.cpp's src/llama-vocab.cpp have them.
#include <array>

#include "engine/text/pretokenizer.h"

namespace kvfs::text {

constexpr std::string_view kGpt2 =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
const std::string_view kGpt2Pattern = kGpt2;

namespace {

constexpr std::string_view kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen35 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N})"
    R"(| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kTekken =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
    R"(|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kGpt4o =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kDeepseek3 =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+)"
    R"(| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kSeedCoder =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kBailing =
    R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*)"
    R"(|\s*[\r\n]|\s+(?!\S)|\s+)";
constexpr std::string_view kBloom = R"( ?[^(\s|.,!?…。，、।۔،)]+)";
constexpr std::string_view kOneDigit = R"([\p{N}{D}])";
constexpr std::string_view kPunctuation = R"([\p{P}\$\+<=>\^~\|`]+)";
constexpr std::string_view kCjk = "[一-龥\u3040-ゟ゠-ヿ]+";

struct Known {
  std::string_view name;
  std::array<std::string_view, 5> stages;
  bool ignores_merges = false;
  bool adds_bos = false;
};
constexpr std::array kKnown = {
    Known{"default", {kPunctuation, kGpt2, R"(\p{N}+)", "[0-9][0-9][0-9]"}},
    Known{"gpt-2", {kGpt2}},
    Known{"phi-2", {kGpt2}},
    Known{"olmo", {kGpt2}},
    Known{"jais", {kGpt2}},
    Known{"mpt", {kGpt2}},
    Known{"gigachat", {kGpt2}},
    Known{"exaone4", {kGpt2}},
    Known{"trillion", {kGpt2}},
    Known{"granite-docling", {kGpt2}},
    Known{"smollm", {kOneDigit, kGpt2}},
    Known{"starcoder", {kOneDigit, kGpt2}},
    Known{"refact", {kOneDigit, kGpt2}},
    Known{"command-r", {kOneDigit, kGpt2}},
    Known{"codeshell", {kOneDigit, kGpt2}},
    Known{"exaone", {kOneDigit, kGpt2}},
    Known{"minerva-7b", {kOneDigit, kGpt2}},
    Known{"falcon", {kPunctuation, kGpt2, "[0-9][0-9][0-9]"}},
    Known{"llama-bpe", {kLlama3}, true, true},
    Known{"llama3", {kLlama3}, true, true},
    Known{"llama-v3", {kLlama3}, true, true},
    Known{"falcon3", {kLlama3}, true, true},
    Known{"falcon-h1", {kLlama3}, true, true},
    Known{"pixtral", {kLlama3}, true, true},
    Known{"lfm2", {kLlama3}, true, true},
    Known{"dbrx", {kLlama3}},
    Known{"smaug-bpe", {kLlama3}},
    Known{"chatglm-bpe", {kLlama3}},
    Known{"glm4", {kLlama3}, true},
    Known{"qwen2", {kQwen2}},
    Known{"deepseek-r1-qwen", {kQwen2}},
    Known{"stablelm2", {kQwen2}},
    Known{"megrez", {kQwen2}},
    Known{"hunyuan", {kQwen2}},
    Known{"grok-2", {kQwen2}},
    Known{"solar-open", {kQwen2}},
    Known{"qwen35", {kQwen35}},
    Known{"tekken", {kTekken}, true, true},
    Known{"gpt-4o", {kGpt4o}},
    Known{"llama4", {kGpt4o}},
    Known{"minimax-m2", {kGpt4o}},
    Known{"deepseek-coder",
          {"[\r\n]", R"(\s?\p{L}+)", R"(\s?\p{P}+)", "[一-龥ࠀ-一가-퟿]+", R"(\p{N})"}},
    Known{"deepseek-v3", {R"(\p{N}{1,3})", kCjk, kDeepseek3}},
    Known{"hunyuan-dense", {R"(\p{N}{1,3})", kCjk, kDeepseek3}},
    Known{"seed-coder", {kSeedCoder}},
    Known{"bailingmoe", {kBailing}},
    Known{"bailingmoe2", {kBailing}},
    Known{"poro-chat", {kBloom}},
    Known{"bloom", {kBloom}},
    Known{"gpt3-finnish", {kBloom}},
    Known{"viking", {kBloom, R"(\p{N})"}},
};

}  // namespace

Result<PreTokenizer> PreTokenizer::named(const std::string& name) {
  std::string names;
  for (const Known& known : kKnown) {
    names += (names.empty() ? "" : ", ") + std::string(known.name);
    if (known.name != name) continue;
    PreTokenizer out;
    for (const std::string_view stage : known.stages) {
      if (!stage.empty()) KVFS_TRY(out.add(stage, Cut::kIsolated, true));
    }
    out.ignores_merges_ = known.ignores_merges;
    out.adds_bos_ = known.adds_bos;
    return out;
  }
  return fail(ErrorCode::kUnsupported, "tokenizer.ggml.pre",
              "the pre-tokenizer \"" + name + "\" is not known",
              "use a model whose pre-tokenizer is one of " + names);
}

}  // namespace kvfs::text
