// Tokenizers: text ↔ token ids, by the model file's own definition.
//
// Immutable after loading; every method may be called from any thread at once. Encoding is linear
// in the input and allocation is bounded by it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "codec/base/ids.h"
#include "codec/container/gguf.h"

namespace kvfs::text {

// How text that spells an added or special token ("<|im_end|>") is read.
enum class SpecialText {
  kAsText,     // users' text: letters like any other
  kAsControl,  // templates' own markers: the token itself
};

// A stretch of a text that is put together from markup and users' words.
struct TextPart {
  std::string_view text;
  SpecialText special;
};

// A stretch of parts that are joined: a control token found in markup, with the white space that it
// takes, or the text between two of them.
struct Stretch {
  TokenId control = -1;            // -1: text
  std::size_t begin = 0, end = 0;  // bytes of the joined parts
  bool spaced = false;             // its first token has a space that is not in the text
};

// What stands before a text: tokenizers that put a space before a first word put none within a
// text.
enum class Before { kNothing, kAddedToken, kText };

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Appends no BOS by itself. Input is UTF-8, checked by the caller.
  virtual std::vector<TokenId> encode(std::string_view utf8, SpecialText special) const = 0;

  // The tokens of the parts joined: letters merge across their seams, but only what lies within
  // parts that are kAsControl can become a control token.
  virtual std::vector<TokenId> encode_parts(std::span<const TextPart> parts, Before before) const;
  // The same for what is appended to tokens that are there.
  std::vector<TokenId> encode_after(const std::vector<TokenId>& history,
                                    std::span<const TextPart> parts) const {
    if (history.empty()) return encode_parts(parts, Before::kNothing);
    return encode_parts(parts, is_special(history.back()) ? Before::kAddedToken : Before::kText);
  }

  // How encode_parts sees the parts, before any text of theirs is cut into tokens.
  virtual std::vector<Stretch> stretches(std::span<const TextPart> parts) const;

  // The bytes of one token as they appear in text; "" for an id without a token string (padding of
  // the vocabulary) and for −1. Special tokens give their spelling. May be part of a UTF-8
  // sequence.
  virtual std::string_view bytes_of(TokenId id) const = 0;

  virtual bool is_special(TokenId id) const = 0;  // control tokens: not printed in replies
  virtual std::int32_t vocab_size() const = 0;

  // Tokens put before the first text of an empty state (raw template): what the tokenizer itself
  // adds.
  virtual std::vector<TokenId> begin_tokens() const = 0;
  // Tokens that end a turn or a text (EOS, EOT); generation stops after any of them.
  virtual const std::vector<TokenId>& end_tokens() const = 0;

  std::string decode(const std::vector<TokenId>& ids) const {
    std::string text;
    for (const TokenId id : ids) text += bytes_of(id);
    return text;
  }
};

// Of the model's embedding, where it is not known.
inline constexpr std::int32_t kAnyRows = std::numeric_limits<std::int32_t>::max();

// Both loaders leave out added tokens that the embedding has no row for: such files exist (Gemma
// 3's image token), and no text, template or model must come by their ids. Other tokens without a
// row are kInvalid.

// From tokenizer.ggml.*; kUnsupported names a model or pre-tokenizer that is not known.
Result<std::unique_ptr<Tokenizer>> load_tokenizer(const container::GgufFile& file,
                                                  std::int32_t rows = kAnyRows);

// From a Hugging Face folder: tokenizer.json, or else tokenizer.model, with the end tokens that its
// configuration files name. kUnsupported gives the JSON path of a component that is not known.
Result<std::unique_ptr<Tokenizer>> load_tokenizer(const std::filesystem::path& folder,
                                                  std::int32_t rows = kAnyRows);

// Holds back an incomplete UTF-8 tail between pieces, so that streamed replies are always valid
// UTF-8; bytes that can never become valid are replaced by U+FFFD. One owner, no locking.
class Utf8Stream {
 public:
  std::string push(std::string_view bytes);  // what may be shown now
  std::string finish();                      // the rest
  bool waits() const { return !pending_.empty(); }

 private:
  std::string pending_;
};

bool is_valid_utf8(std::string_view text);

}  // namespace kvfs::text
