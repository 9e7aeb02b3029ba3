// Unigram tokenization: the segmentation of highest probability (Kudo 2018, section 3.2), by the
// Viterbi pass that sentencepiece's EncodeOptimized takes.
//
// Linear in the text for pieces of bounded length. Immutable once built: any thread.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "codec/base/ids.h"

namespace kvfs::text {

// Strings → ids, walked byte by byte.
class Trie {
 public:
  struct Entry {
    std::string_view text;  // not empty
    TokenId id;
  };
  static Trie build(std::vector<Entry> entries);

  static constexpr std::uint32_t kNone = 0xFFFFFFFF;
  std::uint32_t root() const { return 0; }
  std::uint32_t next(std::uint32_t node, std::uint8_t byte) const;  // kNone
  TokenId id_of(std::uint32_t node) const { return nodes_[node].id; }

 private:
  struct Node {
    std::uint32_t first = 0;  // its children lie together, ordered by label
    std::uint16_t count = 0;
    std::uint8_t label = 0;
    TokenId id = -1;
  };
  std::vector<Node> nodes_;
  std::vector<std::uint8_t> labels_;  // of the nodes, for a fast search
};

class Unigram {
 public:
  // Scores are natural logarithms. tokenizers adds them up in doubles, sentencepiece in floats:
  // where two ways are nearly as good, that decides.
  enum class Sums { kFloats, kDoubles };
  struct Piece {
    std::string_view text;
    TokenId id;
    double score;
  };
  static Unigram build(const std::vector<Piece>& pieces, TokenId unknown, double lowest, Sums sums);

  struct Found {
    TokenId id;
    std::size_t begin, end;  // bytes of the text
  };
  // The pieces of a text, which must be valid UTF-8; letters of no piece are `unknown`, one each.
  std::vector<Found> encode(std::string_view text) const;

 private:
  template <class Sum>
  std::vector<Found> best(std::string_view text) const;

  Trie trie_;
  std::vector<double> scores_;  // by place in the trie's ids
  std::vector<TokenId> ids_;
  TokenId unknown_ = -1;
  double unknown_score_ = 0;
  Sums sums_ = Sums::kDoubles;
};

}  // namespace kvfs::text
