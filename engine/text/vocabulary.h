// The token strings of a byte-level BPE model file (`tokenizer.ggml.tokens` and `token_type`), as
// the bytes they stand for, and the ways back from bytes and spellings to ids.
//
// Immutable after load: any thread. Views returned live as long as the vocabulary.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <boost/unordered/unordered_flat_map.hpp>

#include "codec/base/ids.h"
#include "codec/container/gguf.h"
#include "engine/text/bpe.h"
#include "engine/text/tokenizer.h"

namespace kvfs::text {

class Vocabulary {
 public:
  // Errors name the field.
  static Result<Vocabulary> load(const container::GgufFile& file);

  std::int32_t size() const { return size_; }  // padding without strings included
  std::size_t strings() const { return kinds_.size(); }
  std::string_view bytes_of(TokenId id) const;
  bool is_control(TokenId id) const;

  // The token that merging can make of these bytes; kNoToken where there is none. Control and
  // user-defined tokens are never the answer.
  TokenId plain(std::string_view bytes) const;

  struct Added {
    TokenId id = kNoToken;
    std::size_t length = 0;
  };
  // The longest control or user-defined token whose spelling starts the text (user-defined ones
  // alone in users' text); kNoToken where none does.
  Added added_at(std::string_view text, SpecialText special) const;
  TokenId control(
      std::string_view spelling) const;            // kNoToken where there is no such control token
  bool is_added(std::string_view spelling) const;  // control or user-defined

  // Byte-level spelling ("Ġthe") → bytes (" the"); nullopt where it has letters of no byte.
  static std::optional<std::string> from_byte_level(std::string_view spelling);

  Vocabulary(Vocabulary&&) = default;
  Vocabulary& operator=(Vocabulary&&) = default;

 private:
  enum class Kind : std::uint8_t {
    kPlain,
    kLiteral,  // plain, but in letters that merging never makes
    kControl,
    kUserDefined,  // found in every text, before anything is cut
    kUnused,       // padding
  };
  Vocabulary() = default;
  Status read_kinds(const container::GgufFile& file);
  Status read_size(const container::GgufFile& file);
  void index();

  std::vector<char> bytes_;        // of all tokens, one after the other; moving keeps it in place
  std::vector<std::size_t> ends_;  // of each token in bytes_
  std::vector<Kind> kinds_;
  std::int32_t size_ = 0;
  boost::unordered_flat_map<std::string_view, TokenId> plain_;  // into bytes_
  std::array<std::vector<TokenId>, 256> added_;                 // by first byte, longest first
};

}  // namespace kvfs::text
