#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <optional>

#include "engine/text/readers.h"
#include "engine/text/utf8.h"

namespace kvfs::text {
namespace {

constexpr const char* kTokens = "tokenizer.ggml.tokens";
constexpr const char* kTypes = "tokenizer.ggml.token_type";
constexpr const char* kScores = "tokenizer.ggml.scores";
constexpr const char* kMerges = "tokenizer.ggml.merges";

// Control tokens that end a turn in the templates of known families.
constexpr std::array<std::string_view, 6> kTurnEnds = {
    "<|im_end|>", "<|eot_id|>", "<|end_of_turn|>", "<end_of_turn>", "<|end|>", "<|endoftext|>"};

class Reader {
 public:
  explicit Reader(const container::GgufFile& file) : file_(file) {}

  Result<TokenizerSpec> read() {
    constexpr const char* kModel = "tokenizer.ggml.model";
    KVFS_ASSIGN(const std::string model, file_.string_at(kModel));
    if (model != "gpt2" && model != "llama" && model != "t5") {
      return fail(ErrorCode::kUnsupported, where(kModel),
                  "the tokenizer \"" + model + "\" is not known",
                  "use a model whose tokenizer is gpt2 (byte-level BPE), llama (sentencepiece's "
                  "BPE) or t5 (unigram)");
    }
    byte_level_ = model == "gpt2";
    KVFS_TRY(read_tokens());
    KVFS_TRY(read_kinds());
    KVFS_TRY(read_size());
    bool adds_bos = model == "llama";
    if (byte_level_) {
      KVFS_TRY(read_pre());
      adds_bos = spec_.pre.adds_bos();
      KVFS_TRY(read_merges());
    } else {
      KVFS_TRY(read_sentencepiece_parts(model == "t5"));
    }
    KVFS_TRY(read_begin(adds_bos));
    KVFS_TRY(read_end());
    return std::move(spec_);
  }

 private:
  std::string where(const std::string& field) const { return file_.path().string() + ": " + field; }
  tl::unexpected<Error> wrong(const std::string& field, std::string why) const {
    return fail(ErrorCode::kInvalid, where(field), std::move(why), "convert the model again");
  }

  Status read_tokens() {
    KVFS_ASSIGN(const container::GgufArray* tokens, file_.array_at(kTokens));
    if (tokens->strings.empty()) {
      return fail(ErrorCode::kInvalid, where(kTokens), "it holds no strings",
                  "convert the model again, with its vocabulary");
    }
    if (tokens->strings.size() > std::numeric_limits<TokenId>::max()) {
      return wrong(kTokens, "more tokens than there are ids");
    }
    for (const std::string& text : tokens->strings) spec_.tokens.push_back({text});
    return {};
  }

  Status read_kinds() {
    if (!file_.has(kTypes)) return {};
    KVFS_ASSIGN(const container::GgufArray* types, file_.array_at(kTypes));
    if (types->integers.size() != spec_.tokens.size()) {
      return wrong(kTypes, std::to_string(types->integers.size()) + " types for " +
                               std::to_string(spec_.tokens.size()) + " tokens");
    }
    for (std::size_t i = 0; i < spec_.tokens.size(); ++i) {
      const auto kind = kind_of(types->integers[i]);
      if (!kind) {
        return wrong(kTypes, "token " + std::to_string(i) + " has type " +
                                 std::to_string(types->integers[i]) + ", types are 1 to 6");
      }
      spec_.tokens[i].kind = *kind;
      spec_.tokens[i].mergeable = !byte_level_ && *kind == TokenKind::kUserDefined;
      if (*kind == TokenKind::kUnknown) spec_.unknown = static_cast<TokenId>(i);
    }
    return {};
  }

  std::optional<TokenKind> kind_of(std::int64_t type) const {
    switch (type) {  // ggml's token types
      case 1:
        return TokenKind::kPlain;
      case 2:
        return byte_level_ ? TokenKind::kControl : TokenKind::kUnknown;
      case 3:
        return TokenKind::kControl;
      case 4:
        return TokenKind::kUserDefined;
      case 5:
        return TokenKind::kUnused;
      case 6:
        return byte_level_ ? TokenKind::kPlain : TokenKind::kByte;
      default:
        return std::nullopt;
    }
  }

  // The model may have more rows than there are strings.
  Status read_size() {
    spec_.size = static_cast<std::int32_t>(spec_.tokens.size());
    if (!file_.has("general.architecture")) return {};
    KVFS_ASSIGN(const std::string family, file_.string_at("general.architecture"));
    const std::string key = family + ".vocab_size";
    if (!file_.has(key)) return {};
    KVFS_ASSIGN(const std::uint64_t rows, file_.unsigned_at(key));
    if (rows > std::numeric_limits<std::int32_t>::max()) {
      return wrong(key, std::to_string(rows) + " is more than there are ids");
    }
    spec_.size = std::max(spec_.size, static_cast<std::int32_t>(rows));
    return {};
  }

  Status read_pre() {
    KVFS_ASSIGN(const std::string name, file_.string_at("tokenizer.ggml.pre"));
    auto pre = PreTokenizer::named(name);
    if (!pre) {
      Error error = std::move(pre).error();
      error.what = where(error.what);
      return fail(std::move(error));
    }
    spec_.pre = *std::move(pre);
    spec_.ignores_merges = spec_.pre.ignores_merges();
    return {};
  }

  Status read_merges() {
    KVFS_ASSIGN(const container::GgufArray* merges, file_.array_at(kMerges));
    if (merges->strings.empty() && !(merges->integers.empty() && merges->reals.empty())) {
      return wrong(kMerges, "it holds numbers, not strings");
    }
    const Vocabulary vocabulary = Vocabulary::build(spec_.tokens, spec_.spelling, spec_.size);
    for (std::size_t rank = 0; rank < merges->strings.size(); ++rank) {
      const std::string& line = merges->strings[rank];
      const auto broken = [&](const std::string& why) {
        return wrong(kMerges,
                     "merge " + std::to_string(rank) + " (\"" + line.substr(0, 80) + "\") " + why);
      };
      const std::size_t space = line.find(' ', 1);
      if (space == std::string::npos || space + 1 == line.size()) return broken("is not a pair");
      const auto left = Vocabulary::from_byte_level(line.substr(0, space));
      const auto right = Vocabulary::from_byte_level(line.substr(space + 1));
      if (!left || !right) return broken("is not spelled in byte-level letters");
      const std::string joined = *left + *right;
      // What merging would make of such a pair is an added token, which only its spelling gives.
      if (vocabulary.is_added(*left) || vocabulary.is_added(*right) ||
          vocabulary.is_added(joined)) {
        continue;
      }
      const TokenId a = vocabulary.plain(*left);
      const TokenId b = vocabulary.plain(*right);
      const TokenId ab = vocabulary.plain(joined);
      if (a == kNoToken || b == kNoToken) return broken("joins what is not a token");
      if (ab == kNoToken) return broken("makes what is not a token");
      spec_.merges.push_back({a, b, ab, static_cast<std::uint32_t>(rank)});
    }
    return {};
  }

  Status read_scores() {
    KVFS_ASSIGN(const container::GgufArray* scores, file_.array_at(kScores));
    if (scores->reals.size() != spec_.tokens.size()) {
      return wrong(kScores, std::to_string(scores->reals.size()) + " scores for " +
                                std::to_string(spec_.tokens.size()) + " tokens");
    }
    for (std::size_t i = 0; i < spec_.tokens.size(); ++i) {
      spec_.tokens[i].score = scores->reals[i];
      if (!std::isfinite(spec_.tokens[i].score)) {
        return wrong(kScores, "the score of token " + std::to_string(i) + " is no number");
      }
    }
    return {};
  }

  Result<bool> flag(const std::string& field, bool otherwise) const {
    if (!file_.has(field)) return otherwise;
    return file_.bool_at(field);
  }

  Status read_sentencepiece_parts(bool unigram) {
    KVFS_TRY(read_scores());
    spec_.algorithm = unigram ? Algorithm::kUnigram : Algorithm::kLetterBpe;
    spec_.spelling = Spelling::kMetaspace;
    spec_.merges_by_score = !unigram;
    spec_.sums = Unigram::Sums::kFloats;
    spec_.byte_fallback = std::any_of(spec_.tokens.begin(), spec_.tokens.end(),
                                      [](const auto& t) { return t.kind == TokenKind::kByte; });
    constexpr const char* kUnknown = "tokenizer.ggml.unknown_token_id";
    KVFS_ASSIGN(const std::optional<TokenId> unknown, token_at(kUnknown));
    if (unknown) spec_.unknown = *unknown;
    if (unigram && spec_.unknown == kNoToken) {
      return wrong(kUnknown, "missing, though a unigram model needs it");
    }
    constexpr const char* kMap = "tokenizer.ggml.precompiled_charsmap";
    if (file_.has(kMap)) {
      KVFS_ASSIGN(const container::GgufArray* bytes, file_.array_at(kMap));
      std::string blob;
      for (const std::int64_t byte : bytes->integers) blob += static_cast<char>(byte);
      if (!blob.empty()) {
        auto map = CharsMap::read(blob);
        if (!map) return wrong(kMap, map.error().why);
        NormalizerStep step{NormalizerStep::Kind::kCharsMap};
        step.map = *std::move(map);
        spec_.normalizer.add(std::move(step));
      }
    }
    KVFS_ASSIGN(const bool collapses, flag("tokenizer.ggml.remove_extra_whitespaces", false));
    KVFS_ASSIGN(const bool prefix, flag("tokenizer.ggml.add_space_prefix", true));
    // llama.cpp puts the prefix before what follows an added token too.
    add_sentencepiece_steps(collapses, prefix, false, spec_.normalizer);
    return {};
  }

  // nullopt where the file does not have the field.
  Result<std::optional<TokenId>> token_at(const std::string& field) const {
    if (!file_.has(field)) return std::optional<TokenId>{};
    KVFS_ASSIGN(const std::uint64_t id, file_.unsigned_at(field));
    if (id >= static_cast<std::uint64_t>(spec_.size)) {
      return wrong(field, "token " + std::to_string(id) + " of a vocabulary of " +
                              std::to_string(spec_.size));
    }
    return std::optional<TokenId>(static_cast<TokenId>(id));
  }

  Status read_begin(bool adds) {
    constexpr const char* kBos = "tokenizer.ggml.bos_token_id";
    KVFS_ASSIGN(adds, flag("tokenizer.ggml.add_bos_token", adds));
    KVFS_ASSIGN(const std::optional<TokenId> bos, token_at(kBos));
    if (!adds) return {};
    if (!bos) return wrong(kBos, "missing, though texts begin with it");
    spec_.begin = {*bos};
    return {};
  }

  Status read_end() {
    const auto add = [this](std::optional<TokenId> id) {
      auto& end = spec_.end;
      if (id && std::find(end.begin(), end.end(), *id) == end.end()) end.push_back(*id);
    };
    for (const char* name : {"eos", "eot"}) {
      const std::string field = std::string("tokenizer.ggml.") + name + "_token_id";
      KVFS_ASSIGN(const std::optional<TokenId> id, token_at(field));
      add(id);
    }
    for (const char* name : {"unknown", "padding"}) {  // not used, but not to be wrong either
      KVFS_TRY(token_at(std::string("tokenizer.ggml.") + name + "_token_id"));
    }
    constexpr const char* kTemplate = "tokenizer.chat_template";
    if (!file_.has(kTemplate)) return {};
    KVFS_ASSIGN(const std::string chat, file_.string_at(kTemplate));
    for (const std::string_view spelling : kTurnEnds) {
      if (chat.find(spelling) == std::string::npos) continue;
      for (std::size_t i = 0; i < spec_.tokens.size(); ++i) {
        const SpelledToken& token = spec_.tokens[i];
        if (token.kind == TokenKind::kControl && token.text == spelling) {
          add(static_cast<TokenId>(i));
        }
      }
    }
    return {};
  }

  const container::GgufFile& file_;
  bool byte_level_ = true;
  TokenizerSpec spec_;
};

}  // namespace

void add_sentencepiece_steps(bool collapses, bool adds_prefix, bool first_only, Normalizer& out) {
  if (collapses) out.add({NormalizerStep::Kind::kCollapse});
  if (adds_prefix) {
    NormalizerStep prefix{NormalizerStep::Kind::kPrefix};
    prefix.to = " ";
    prefix.first_only = first_only;
    out.add(std::move(prefix));
  }
  NormalizerStep escape{NormalizerStep::Kind::kReplace};
  escape.from = " ";
  escape.to = kMetaspace;
  out.add(std::move(escape));
  if (collapses) {  // sentencepiece takes ▁ that the text had itself for spaces here
    NormalizerStep trim{NormalizerStep::Kind::kTrimEnd};
    trim.from = kMetaspace;
    out.add(std::move(trim));
  }
}

Result<TokenizerSpec> read_gguf_tokenizer(const container::GgufFile& file) {
  return Reader(file).read();
}

}  // namespace kvfs::text
