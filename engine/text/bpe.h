// Byte-pair merging of one piece of text: join the neighbours of the lowest rank, the leftmost
// first, until no pair can be joined (Sennrich et al. 2016, section 3.2, on bytes).
//
// Short pieces are scanned; long ones are a linked list, their pairs in order of rank and place.
// Immutable once filled: any thread may encode.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include <boost/unordered/unordered_flat_map.hpp>

#include "codec/base/ids.h"

namespace kvfs::text {

inline constexpr TokenId kNoToken = -1;

class Bpe {
 public:
  Bpe() { byte_tokens_.fill(kNoToken); }

  void set_byte(std::uint8_t byte, TokenId id) { byte_tokens_[byte] = id; }
  // The first rank given to a pair stays. Pairs of one rank are joined from the left.
  void add_merge(TokenId left, TokenId right, std::uint32_t rank, TokenId joined);

  // Appends the tokens of a piece whose symbols are its bytes. A byte that the vocabulary has no
  // token for is left out before merging, as the tokenizers library does without an unknown token.
  void encode(std::string_view piece, std::vector<TokenId>& out) const;
  // Appends what becomes of other symbols, which may be ids beyond the vocabulary's.
  void merge(std::span<const TokenId> symbols, std::vector<TokenId>& out) const;

 private:
  struct Merge {
    std::uint32_t rank;
    TokenId joined;
  };
  const Merge* find(TokenId left, TokenId right) const;
  void merge_short(std::span<const TokenId> symbols, std::vector<TokenId>& out) const;
  void merge_long(std::span<const TokenId> symbols, std::vector<TokenId>& out) const;

  std::array<TokenId, 256> byte_tokens_{};
  boost::unordered_flat_map<std::uint64_t, Merge> merges_;  // by both ids
};

}  // namespace kvfs::text
