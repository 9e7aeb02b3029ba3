// Byte-level BPE tokenizers (`tokenizer.ggml.model` = gpt2): vocabulary, pre-tokenizer and merges
// of one model file put together. See tokenizer.h for the contract.
//
// Bytes that no token stands for are left out (SmolLM2 lacks six control characters and the lead
// bytes of the unassigned planes 4 to 11); bytes that are not UTF-8 are pieces of their own.
#pragma once

#include <memory>
#include <vector>

#include "engine/text/bpe.h"
#include "engine/text/pretokenizer.h"
#include "engine/text/tokenizer.h"
#include "engine/text/vocabulary.h"

namespace kvfs::text {

class BpeTokenizer final : public Tokenizer {
 public:
  static Result<std::unique_ptr<Tokenizer>> load(const container::GgufFile& file);

  std::vector<TokenId> encode(std::string_view utf8, SpecialText special) const override;
  std::vector<TokenId> encode_parts(std::span<const TextPart> parts) const override;
  std::string_view bytes_of(TokenId id) const override { return vocabulary_.bytes_of(id); }
  bool is_special(TokenId id) const override { return vocabulary_.is_control(id); }
  std::int32_t vocab_size() const override { return vocabulary_.size(); }
  std::vector<TokenId> begin_tokens() const override { return begin_; }
  const std::vector<TokenId>& end_tokens() const override { return end_; }

 private:
  BpeTokenizer(Vocabulary vocabulary, PreTokenizer pre)
      : vocabulary_(std::move(vocabulary)), pre_(std::move(pre)) {}
  Status read_merges(const container::GgufFile& file);
  Status read_begin(const container::GgufFile& file);
  Status read_end(const container::GgufFile& file);
  void find_whole_pieces();

  void encode_text(std::string_view utf8,
                   std::vector<TokenId>& out) const;  // no added tokens in it
  void encode_pieces(std::string_view valid, std::vector<TokenId>& out) const;

  Vocabulary vocabulary_;
  PreTokenizer pre_;
  Bpe bpe_;
  std::vector<bool> whole_;  // by id: the token's bytes, as a piece, are that token
  std::vector<TokenId> begin_, end_;
};

}  // namespace kvfs::text
