#include "engine/text/pretokenizer.h"

#include <array>

namespace kvfs::text {
namespace {

// The insides of character classes. PCRE2 10.42 knows Unicode 14; these add what later versions
// assigned, as the tokenizers library has it (letters and numbers of Unicode 16; its Digits stage
// follows 17). The one thing added twice, by a newer PCRE2, does no harm.
constexpr std::string_view kLetters =
    R"(\p{L}\x{1C89}\x{1C8A}\x{A7CB}-\x{A7CD}\x{A7DA}-\x{A7DC}\x{105C0}-\x{105F3}\x{10D4A}-\x{10D65})"
    R"(\x{10D6F}-\x{10D85}\x{10EC2}-\x{10EC4}\x{1123F}\x{11240}\x{11380}-\x{11389}\x{1138B}\x{1138E})"
    R"(\x{11390}-\x{113B5}\x{113B7}\x{113D1}\x{113D3}\x{11BC0}-\x{11BE0}\x{11F02}\x{11F04}-\x{11F10})"
    R"(\x{11F12}-\x{11F33}\x{1342F}\x{13441}-\x{13446}\x{13460}-\x{143FA}\x{16100}-\x{1611D})"
    R"(\x{16D40}-\x{16D6C}\x{18CFF}\x{1B132}\x{1B155}\x{1DF25}-\x{1DF2A}\x{1E030}-\x{1E06D})"
    R"(\x{1E4D0}-\x{1E4EB}\x{1E5D0}-\x{1E5ED}\x{1E5F0}\x{2B739}\x{2EBF0}-\x{2EE5D}\x{31350}-\x{323AF})";
constexpr std::string_view kNumbers =
    R"(\p{N}\x{10D40}-\x{10D49}\x{116D0}-\x{116E3}\x{11BF0}-\x{11BF9}\x{11F50}-\x{11F59})"
    R"(\x{16130}-\x{16139}\x{16D70}-\x{16D79}\x{1CCF0}-\x{1CCF9}\x{1D2C0}-\x{1D2D3}\x{1E4F0}-\x{1E4F9})"
    R"(\x{1E5F1}-\x{1E5FA})";
constexpr std::string_view kNewestDigits = R"(\x{11DE0}-\x{11DE9}\x{16FF4}-\x{16FF6})";
// Unicode's White_Space; PCRE2's own \s has U+180E besides, which is none since Unicode 6.3.
constexpr std::string_view kSpaces =
    R"(\x{9}-\x{D}\x{20}\x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";

// Stages are written with the letters L, N, D, S in braces for the classes' insides above.
constexpr std::string_view kGpt2 =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?[{L}]+| ?[{N}]+| ?[^{S}{L}{N}]+|[{S}]+(?![^{S}])|[{S}]+)";
constexpr std::string_view kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n{L}{N}]?[{L}]+|[{N}]{1,3}| ?[^{S}{L}{N}]+[\r\n]*)"
    R"(|[{S}]*[\r\n]+|[{S}]+(?![^{S}])|[{S}]+)";
constexpr std::string_view kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n{L}{N}]?[{L}]+|[{N}]| ?[^{S}{L}{N}]+[\r\n]*)"
    R"(|[{S}]*[\r\n]+|[{S}]+(?![^{S}])|[{S}]+)";
constexpr std::string_view kOneDigit = "[{N}{D}]";

struct Known {
  std::string_view name;
  std::array<std::string_view, 2> stages;
  bool ignores_merges = false;
  bool adds_bos = false;
};
constexpr std::array<Known, 4> kKnown = {{
    {"smollm", {kOneDigit, kGpt2}},
    {"gpt-2", {kGpt2, {}}},
    {"llama-bpe", {kLlama3, {}}, true, true},
    {"qwen2", {kQwen2, {}}},
}};

std::string expand(std::string_view stage) {
  std::string pattern;
  for (std::size_t i = 0; i < stage.size(); ++i) {
    const std::string_view part = stage.substr(i, 3);
    std::string_view inside;
    if (part == "{L}") inside = kLetters;
    if (part == "{N}") inside = kNumbers;
    if (part == "{D}") inside = kNewestDigits;
    if (part == "{S}") inside = kSpaces;
    if (inside.empty()) {
      pattern += stage[i];
    } else {
      pattern += inside;
      i += part.size() - 1;
    }
  }
  return pattern;
}

}  // namespace

Result<PreTokenizer> PreTokenizer::named(const std::string& name) {
  std::string names;
  for (const Known& known : kKnown) {
    names += (names.empty() ? "" : ", ") + std::string(known.name);
    if (known.name != name) continue;
    PreTokenizer out;
    for (const std::string_view stage : known.stages) {
      if (stage.empty()) continue;
      KVFS_ASSIGN(Regex regex, Regex::compile(expand(stage)));
      out.stages_.push_back(std::move(regex));
    }
    out.ignores_merges_ = known.ignores_merges;
    out.adds_bos_ = known.adds_bos;
    return out;
  }
  return fail(ErrorCode::kUnsupported, "tokenizer.ggml.pre",
              "the pre-tokenizer \"" + name + "\" is not known",
              "use a model whose pre-tokenizer is one of " + names);
}

PreTokenizer::Pieces::Pieces(const PreTokenizer& owner, std::string_view text)
    : owner_(owner), levels_(owner.stages_.size()) {
  levels_.front().piece = text;
}

bool PreTokenizer::Pieces::cut(std::size_t stage, std::string_view& piece) {
  Level& level = levels_[stage];
  while (level.at < level.piece.size()) {
    if (level.match.end <= level.at) {
      const auto found = owner_.stages_[stage].find(level.piece, level.at, scratch_);
      level.match = found.value_or(Span{level.piece.size(), level.piece.size()});
    }
    const bool gap = level.match.begin > level.at;
    const std::size_t end = gap ? level.match.begin : level.match.end;
    piece = level.piece.substr(level.at, end - level.at);
    level.at = end;
    return true;
  }
  return false;
}

bool PreTokenizer::Pieces::next(std::string_view& piece) {
  std::size_t stage = levels_.size() - 1;
  while (true) {
    if (cut(stage, piece)) {
      if (stage + 1 == levels_.size()) return true;
      levels_[++stage] = Level{piece, 0, {}};
    } else if (stage == 0) {
      return false;
    } else {
      --stage;
    }
  }
}

}  // namespace kvfs::text
