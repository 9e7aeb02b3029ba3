// The token strings of a model, as its algorithm spells them and as the bytes they stand for, and
// the ways back from spellings to ids.
//
// Immutable once built: any thread. Views returned live as long as the vocabulary.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <boost/unordered/unordered_flat_map.hpp>

#include "codec/base/ids.h"
#include "engine/text/bpe.h"
#include "engine/text/tokenizer.h"

namespace kvfs::text {

enum class TokenKind : std::uint8_t {
  kPlain,
  kLiteral,  // plain, but in letters that merging never makes
  kByte,     // <0x0A>: one byte of what has no token
  kUnknown,
  kControl,
  kUserDefined,  // found in every text, before anything is cut
  kUnused,       // padding
};

// How a file spells what its plain tokens stand for.
enum class Spelling {
  kByteLevel,  // GPT-2's letters for bytes; the algorithm then works on the bytes
  kMetaspace,  // ▁ for a space; the algorithm works on the spelling
  kPlain,      // as it is
};

struct SpelledToken {
  std::string text;
  TokenKind kind = TokenKind::kPlain;
  double score = 0;
  bool mergeable = false;  // user-defined, but the algorithm can make it too
};

// How an added token of a tokenizer.json is looked for.
struct AddedRule {
  bool lstrip = false, rstrip = false;  // takes the white space beside it
  bool single_word = false;             // not within a word
  bool normalized = false;              // in the text that the normalizer has made
};

class Vocabulary {
 public:
  // `size` counts padding too, and is not below the number of tokens.
  static Vocabulary build(const std::vector<SpelledToken>& tokens, Spelling spelling,
                          std::int32_t size);

  std::int32_t size() const { return size_; }
  std::size_t strings() const { return kinds_.size(); }
  std::string_view bytes_of(TokenId id) const;  // as it shows in text
  std::string_view spelling_of(TokenId id) const;
  TokenKind kind_of(TokenId id) const;  // kUnused for ids without a string
  bool is_control(TokenId id) const {
    const TokenKind kind = kind_of(id);
    return kind == TokenKind::kControl || kind == TokenKind::kUnknown;
  }

  // The token that the algorithm can make of this spelling; kNoToken where there is none. Control
  // and user-defined tokens are never the answer.
  TokenId plain(std::string_view spelling) const;
  TokenId byte(std::uint8_t byte) const { return bytes_[byte]; }  // <0x..>; kNoToken

  TokenId control(
      std::string_view spelling) const;            // kNoToken where there is no such control token
  bool is_added(std::string_view spelling) const;  // control or user-defined
  // Control and user-defined tokens by their first byte, the longest first.
  const std::vector<TokenId>& added_by(std::uint8_t first) const { return added_[first]; }

  // Byte-level spelling ("Ġthe") → bytes (" the"); nullopt where it has letters of no byte.
  static std::optional<std::string> from_byte_level(std::string_view spelling);

  Vocabulary(Vocabulary&&) = default;
  Vocabulary& operator=(Vocabulary&&) = default;

 private:
  // Strings one after the other; moving keeps them in place.
  struct Strings {
    std::vector<char> bytes;
    std::vector<std::size_t> ends;
    void add(std::string_view text);
    std::string_view at(std::size_t place) const;
  };
  Vocabulary() = default;
  void index();

  Strings spelled_, shown_;  // shown_ is empty where nothing differs
  std::vector<TokenKind> kinds_;
  std::int32_t size_ = 0;
  std::array<TokenId, 256> bytes_{};
  boost::unordered_flat_map<std::string_view, TokenId> plain_;  // into spelled_
  std::array<std::vector<TokenId>, 256> added_;
};

}  // namespace kvfs::text
