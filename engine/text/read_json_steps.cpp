// tokenizer.json's normalizer, pre_tokenizer and decoder.
#include <array>

#include "engine/text/json_view.h"
#include "engine/text/readers.h"
#include "engine/text/utf8.h"

namespace kvfs::text {
namespace {

using Kind = NormalizerStep::Kind;

Result<std::string> from_base64(const JsonView& at) {
  constexpr std::string_view kLetters =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  KVFS_ASSIGN(const std::string text, at.text());
  std::string out;
  std::uint32_t bits = 0, count = 0;
  for (const char c : text) {
    if (c == '=') break;
    const std::size_t value = kLetters.find(c);
    if (value == std::string_view::npos) return at.wrong("it is not base64");
    bits = bits << 6U | static_cast<std::uint32_t>(value);
    count += 6;
    if (count < 8) continue;
    count -= 8;
    out += static_cast<char>(bits >> count & 0xFFU);
  }
  return out;
}

// {"String": ...} or {"Regex": ...}, as a regular expression.
Result<std::string> pattern_at(const JsonView& step) {
  KVFS_ASSIGN(const JsonView pattern, step.at("pattern"));
  if (pattern.has("Regex")) return pattern.text_at("Regex");
  KVFS_ASSIGN(const std::string text, pattern.text_at("String"));
  std::string out;
  for (const char c : text) {
    if (std::string_view(R"(\^$.|?*+()[]{}#)").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

template <class T>
Result<T> in_place(Result<T> result, const JsonView& step, const char* member) {
  if (!result) result.error().what = step.place() + "." + member;
  return result;
}

Result<NormalizerStep> normalizer_step(const JsonView& step) {
  constexpr std::array<std::pair<std::string_view, Kind>, 5> kPlain = {
      {{"NFC", Kind::kNfc},
       {"NFD", Kind::kNfd},
       {"NFKC", Kind::kNfkc},
       {"NFKD", Kind::kNfkd},
       {"Lowercase", Kind::kLowercase}}};
  KVFS_ASSIGN(const std::string type, step.text_at("type"));
  NormalizerStep out;
  for (const auto& [name, kind] : kPlain) {
    out.kind = kind;
    if (type == name) return out;
  }
  if (type == "Strip") {
    out.kind = Kind::kStrip;
    KVFS_ASSIGN(out.left, step.flag_or("strip_left", true));
    KVFS_ASSIGN(out.right, step.flag_or("strip_right", true));
  } else if (type == "Prepend") {
    out.kind = Kind::kPrefix;
    KVFS_ASSIGN(out.to, step.text_at("prepend"));
  } else if (type == "Replace") {
    out.kind = Kind::kReplace;
    KVFS_ASSIGN(out.to, step.text_at("content"));
    KVFS_ASSIGN(const JsonView pattern, step.at("pattern"));
    if (pattern.has("String")) {
      KVFS_ASSIGN(out.from, pattern.text_at("String"));
      if (out.from.empty()) return pattern.wrong("it replaces nothing");
    } else {
      KVFS_ASSIGN(const std::string regex, pattern_at(step));
      KVFS_ASSIGN(Regex compiled, in_place(Regex::compile(regex, false), step, "pattern"));
      out.pattern = std::move(compiled);
    }
  } else if (type == "Precompiled") {
    out.kind = Kind::kCharsMapByLetter;
    KVFS_ASSIGN(const JsonView field, step.at("precompiled_charsmap"));
    KVFS_ASSIGN(const std::string blob, from_base64(field));
    KVFS_ASSIGN(CharsMap map, in_place(CharsMap::read(blob), step, "precompiled_charsmap"));
    out.map = std::move(map);
  } else {
    return step.unsupported("type", "the normalizer \"" + type + "\" is not known");
  }
  return out;
}

Result<Cut> cut_at(const JsonView& step, const char* otherwise) {
  constexpr std::array<std::pair<std::string_view, Cut>, 5> kCuts = {
      {{"Isolated", Cut::kIsolated},
       {"Removed", Cut::kRemoved},
       {"MergedWithPrevious", Cut::kMergedWithPrevious},
       {"MergedWithNext", Cut::kMergedWithNext},
       {"Contiguous", Cut::kContiguous}}};
  KVFS_ASSIGN(const std::string behavior, step.text_or("behavior", otherwise));
  KVFS_ASSIGN(const bool invert, step.flag_or("invert", false));
  for (const auto& [name, cut] : kCuts) {
    if (name != behavior) continue;
    if (!invert || cut == Cut::kIsolated) return cut;
    if (cut == Cut::kRemoved) return Cut::kOnlyMatches;
    return step.unsupported("invert", "\"" + behavior + "\" of what does not match is not known");
  }
  return step.unsupported("behavior", "\"" + behavior + "\" is not known");
}

// The stages of one pre-tokenizer after the other.
class PreReader {
 public:
  explicit PreReader(TokenizerSpec& spec) : spec_(spec) {}

  Status read(const JsonView& step) {
    KVFS_ASSIGN(const std::string type, step.text_at("type"));
    const auto add = [&](std::string_view pattern, Cut cut) {
      return in_place(spec_.pre.add(pattern, cut, false), step, "pattern");
    };
    if (type == "ByteLevel") return read_byte_level(step);
    if (type == "Metaspace") return read_metaspace(step);
    ++stages_;
    words_ = type == "WhitespaceSplit" && stages_ == 1;
    if (type == "Split") {
      KVFS_ASSIGN(const std::string pattern, pattern_at(step));
      KVFS_ASSIGN(const Cut cut, cut_at(step, "Isolated"));
      return add(pattern, cut);
    }
    if (type == "Digits") {
      KVFS_ASSIGN(const bool one, step.flag_or("individual_digits", false));
      return add(one ? R"([\p{N}{D}])" : R"([\p{N}{D}]+)", Cut::kIsolated);
    }
    if (type == "Punctuation") {
      KVFS_ASSIGN(const Cut cut, cut_at(step, "Isolated"));
      return add(R"([!-/:-@\[-`{-~\p{P}])", cut);
    }
    if (type == "Whitespace") return add(R"(\w+|[^\w\s]+)", Cut::kOnlyMatches);
    if (type == "WhitespaceSplit") return add(R"(\s)", Cut::kRemoved);
    return step.unsupported("type", "the pre-tokenizer \"" + type + "\" is not known");
  }

 private:
  Status read_byte_level(const JsonView& step) {
    spec_.algorithm = Algorithm::kByteBpe;
    spec_.spelling = Spelling::kByteLevel;
    KVFS_ASSIGN(const bool prefix, step.flag_or("add_prefix_space", true));
    if (prefix) {
      if (stages_ > 0) return step.unsupported("add_prefix_space", "a space before every piece");
      NormalizerStep space{Kind::kPrefix};
      space.to = " ";
      space.unless_there = true;
      spec_.before_pieces.add(std::move(space));
    }
    ++stages_;
    KVFS_ASSIGN(const bool cuts, step.flag_or("use_regex", true));
    if (!cuts) return {};
    return spec_.pre.add(kGpt2Pattern, Cut::kIsolated, true);
  }

  Status read_metaspace(const JsonView& step) {
    KVFS_ASSIGN(const std::string mark, step.text_or("replacement", std::string(kMetaspace)));
    if (mark != kMetaspace) return step.unsupported("replacement", "\"" + mark + "\" for spaces");
    if (stages_ > 0 && !words_) return step.unsupported("type", "Metaspace after another stage");
    KVFS_ASSIGN(const bool legacy, step.flag_or("add_prefix_space", true));
    KVFS_ASSIGN(const std::string scheme,
                step.text_or("prepend_scheme", legacy ? "always" : "never"));
    if (scheme != "always" && scheme != "first" && scheme != "never") {
      return step.unsupported("prepend_scheme", "\"" + scheme + "\" is not known");
    }
    KVFS_ASSIGN(const bool cuts, step.flag_or("split", true));
    if (words_) {  // each word by itself gets its mark
      if (scheme != "always" || !cuts) {
        return step.unsupported("prepend_scheme", "\"" + scheme + "\" after WhitespaceSplit");
      }
      spec_.pre = PreTokenizer();
      NormalizerStep words{Kind::kWords};
      words.to = kMetaspace;
      spec_.before_pieces.add(std::move(words));
    } else {
      NormalizerStep escape{Kind::kReplace};
      escape.from = " ";
      escape.to = kMetaspace;
      spec_.before_pieces.add(std::move(escape));
      NormalizerStep prefix{Kind::kPrefix};
      prefix.to = kMetaspace;
      prefix.unless_there = true;
      prefix.first_only = scheme == "first";
      if (scheme != "never") spec_.before_pieces.add(std::move(prefix));
    }
    ++stages_;
    words_ = false;
    if (!cuts) return {};
    return spec_.pre.add(kMetaspace, Cut::kMergedWithNext, true);
  }

  TokenizerSpec& spec_;
  std::size_t stages_ = 0;
  bool words_ = false;
};

Status read_decoder(const JsonView& step, TokenizerSpec& spec) {
  KVFS_ASSIGN(const std::string type, step.text_at("type"));
  // What these say of single tokens is said elsewhere, and a text's first space is not theirs to
  // take: a state's text is what its tokens stand for.
  if (type == "ByteLevel" || type == "ByteFallback" || type == "Fuse" || type == "Strip") return {};
  if (type == "Metaspace") {
    spec.spelling = Spelling::kMetaspace;
    return {};
  }
  if (type != "Replace") {
    return step.unsupported("type", "the decoder \"" + type + "\" is not known");
  }
  KVFS_ASSIGN(const JsonView pattern, step.at("pattern"));
  KVFS_ASSIGN(const std::string from, pattern.text_at("String"));
  KVFS_ASSIGN(const std::string to, step.text_at("content"));
  if (from != kMetaspace || to != " ") {
    return step.unsupported("pattern", "\"" + from + "\" for \"" + to + "\" is not known");
  }
  spec.spelling = Spelling::kMetaspace;
  return {};
}

// The parts of a component that may be missing.
Result<std::vector<JsonView>> parts_of(const JsonView& root, const char* name, const char* list) {
  std::vector<JsonView> steps;
  if (root.has(name)) {
    KVFS_ASSIGN(const JsonView component, root.at(name));
    KVFS_TRY(flatten(component, list, steps));
  }
  constexpr std::size_t kMost = 64;
  if (steps.size() > kMost) {
    return fail(ErrorCode::kInvalid, steps[kMost].place(), "more than 64 steps");
  }
  return steps;
}

}  // namespace

Status read_json_pieces(const JsonView& root, TokenizerSpec& spec) {
  spec.algorithm = Algorithm::kLetterBpe;
  spec.spelling = Spelling::kPlain;
  KVFS_ASSIGN(const auto normalizers, parts_of(root, "normalizer", "normalizers"));
  for (const JsonView& step : normalizers) {
    KVFS_ASSIGN(NormalizerStep made, normalizer_step(step));
    spec.normalizer.add(std::move(made));
  }
  KVFS_ASSIGN(const auto decoders, parts_of(root, "decoder", "decoders"));
  for (const JsonView& step : decoders) KVFS_TRY(read_decoder(step, spec));
  KVFS_ASSIGN(const auto stages, parts_of(root, "pre_tokenizer", "pretokenizers"));
  PreReader reader(spec);
  for (const JsonView& step : stages) KVFS_TRY(reader.read(step));
  return {};
}

}  // namespace kvfs::text
