// Pre-tokenizers: cut a text into the pieces that byte-pair merging never crosses, by the patterns
// that `tokenizer.ggml.pre` names.
//
// A pre-tokenizer is a list of stages; each stage cuts every piece of the one before it, apart from
// its neighbours, into the matches of its pattern and the gaps between them. Immutable, any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/text/regex.h"

namespace kvfs::text {

class PreTokenizer {
 public:
  // kUnsupported lists the names that are known.
  static Result<PreTokenizer> named(const std::string& name);

  // One call's walk over the pieces, in order. The text must be valid UTF-8 and outlive it.
  class Pieces {
   public:
    Pieces(const PreTokenizer& owner, std::string_view text);
    bool next(std::string_view& piece);  // false at the end; pieces are never empty

   private:
    struct Level {
      std::string_view piece;  // what this stage cuts
      std::size_t at = 0;      // cut up to here
      Span match;  // found, and not handed on yet, where begin ≥ at and it is not empty
    };
    bool cut(std::size_t stage, std::string_view& piece);

    const PreTokenizer& owner_;
    Regex::Scratch scratch_;
    std::vector<Level> levels_;
  };

  bool ignores_merges() const { return ignores_merges_; }  // a piece that is a token is that token
  bool adds_bos() const { return adds_bos_; }              // where the file does not say

 private:
  std::vector<Regex> stages_;
  bool ignores_merges_ = false;
  bool adds_bos_ = false;
};

}  // namespace kvfs::text
