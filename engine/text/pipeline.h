// The one tokenizer behind every file format: added tokens out, normalize, cut, merge or segment.
//
// The readers (read_gguf.cpp, read_json.cpp, read_sentencepiece.cpp) fill a TokenizerSpec; see
// tokenizer.h for the contract. Bytes that no token stands for become byte tokens where the model
// has them, else its unknown token, else nothing. Bytes that are not UTF-8 are pieces of their own.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/text/bpe.h"
#include "engine/text/normalizer.h"
#include "engine/text/pretokenizer.h"
#include "engine/text/tokenizer.h"
#include "engine/text/unigram.h"
#include "engine/text/vocabulary.h"

namespace kvfs::text {

enum class Algorithm { kByteBpe, kLetterBpe, kUnigram };

struct MergeRule {
  TokenId left, right, joined;
  std::uint32_t rank;
};

// What a file says of its tokenizer; ids are checked by the readers.
struct TokenizerSpec {
  Algorithm algorithm = Algorithm::kByteBpe;
  Spelling spelling = Spelling::kByteLevel;
  std::vector<SpelledToken> tokens;
  std::int32_t size = 0;                             // with padding
  std::vector<std::pair<TokenId, AddedRule>> rules;  // of added tokens that have any
  std::vector<MergeRule> merges;
  bool merges_by_score = false;  // sentencepiece: every pair whose spelling is a token merges
  bool ignores_merges = false;   // a piece that is a token is that token
  bool byte_fallback = false;
  bool fuses_unknown = true;
  TokenId unknown = kNoToken;
  Unigram::Sums sums = Unigram::Sums::kDoubles;
  Normalizer normalizer;
  Normalizer before_pieces;  // what a pre-tokenizer changes in the text, after added tokens are out
  PreTokenizer pre;
  std::vector<TokenId> begin, end;
};

class Pipeline final : public Tokenizer {
 public:
  static Result<std::unique_ptr<Tokenizer>> build(TokenizerSpec spec);

  std::vector<TokenId> encode(std::string_view utf8, SpecialText special) const override;
  std::vector<TokenId> encode_parts(std::span<const TextPart> parts, Before before) const override;
  std::vector<Stretch> stretches(std::span<const TextPart> parts) const override;
  std::string_view bytes_of(TokenId id) const override { return vocabulary_.bytes_of(id); }
  bool is_special(TokenId id) const override { return vocabulary_.is_control(id); }
  std::int32_t vocab_size() const override { return vocabulary_.size(); }
  std::vector<TokenId> begin_tokens() const override { return spec_.begin; }
  const std::vector<TokenId>& end_tokens() const override { return spec_.end; }

 private:
  // An added token found in a text, with the white space that it takes.
  struct Added {
    TokenId id = kNoToken;
    std::size_t begin = 0, end = 0;
  };
  Pipeline(TokenizerSpec spec, Vocabulary vocabulary)
      : spec_(std::move(spec)), vocabulary_(std::move(vocabulary)) {}
  Status add_merges();
  Status add_scored_merges();
  TokenId symbol_of(std::string_view letter);
  void build_unigram();
  void find_whole_pieces();
  void find_cuts();

  template <class Found>
  void each_added(std::string_view text, std::span<const TextPart> parts, const Found& found) const;
  Added added_at(std::string_view text, std::size_t at, std::size_t from, std::size_t limit,
                 SpecialText special, bool normalized) const;
  AddedRule rule_of(TokenId id) const;
  void encode_text(std::string_view text, Before before, SpecialText special,
                   std::vector<TokenId>& out) const;
  void encode_normalized(std::string_view text, Before before, SpecialText special,
                         std::vector<TokenId>& out) const;
  void encode_pieces(std::string_view text, Before before, std::vector<TokenId>& out) const;
  void encode_piece(std::string_view piece, std::vector<TokenId>& out) const;
  void encode_letters(std::string_view piece, std::vector<TokenId>& out) const;
  void encode_unigram(std::string_view piece, std::vector<TokenId>& out) const;
  // Tokens for bytes that no token stands for; false where the model has none.
  bool add_bytes(std::string_view bytes, std::vector<TokenId>& out) const;
  void add_unknown(std::string_view bytes, bool& after_unknown, std::vector<TokenId>& out) const;

  TokenizerSpec spec_;  // without tokens and merges once built
  Vocabulary vocabulary_;
  Bpe bpe_;
  Unigram unigram_;
  std::vector<bool> whole_;         // by id: the token's spelling, as a piece, is that token
  bool cuts_at_metaspace_ = false;  // no merge crosses the place before a ▁ that follows a letter
  bool has_normalized_added_ = false;
  // Letters that only longer tokens have, as symbols beyond the vocabulary's ids.
  boost::unordered_flat_map<std::string, TokenId> symbols_;
  std::vector<std::string> symbol_text_;
  std::vector<std::pair<TokenId, AddedRule>> rules_;  // by id
};

}  // namespace kvfs::text
