// Pre-tokenizers: cut a text into the pieces that merging never crosses, by the patterns of a
// tokenizer.json, or those that `tokenizer.ggml.pre` names (pretokenizer_names.cpp).
//
// A pre-tokenizer is a list of stages; each stage cuts every piece of the one before it, apart from
// its neighbours, by the matches of its pattern. Immutable once built, any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/text/regex.h"

namespace kvfs::text {

// What becomes of a stage's matches and of the gaps between them; tokenizers' words.
enum class Cut {
  kIsolated,            // pieces of their own
  kRemoved,             // the matches are dropped
  kOnlyMatches,         // the gaps are dropped
  kMergedWithPrevious,  // a match ends the gap before it
  kMergedWithNext,      // a match begins the gap after it
  kContiguous,          // matches beside each other are one piece
};

class PreTokenizer {
 public:
  // tokenizer.ggml.pre's; kUnsupported lists the names that are known.
  static Result<PreTokenizer> named(const std::string& name);

  // A stage by a pattern in the syntax of a tokenizer.json (Oniguruma's); kInvalid where it does
  // not compile. `trusted` patterns are the program's own: their matching is not limited.
  Status add(std::string_view pattern, Cut cut, bool trusted);

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
    void find(Level& level, std::size_t stage);

    const PreTokenizer& owner_;
    Regex::Scratch scratch_;
    std::vector<Level> levels_;
    std::string_view whole_;  // where there are no stages
  };

  bool ignores_merges() const { return ignores_merges_; }  // a piece that is a token is that token
  bool adds_bos() const { return adds_bos_; }              // where the file does not say

 private:
  struct Stage {
    Regex regex;
    Cut cut;
  };
  std::vector<Stage> stages_;
  bool ignores_merges_ = false;
  bool adds_bos_ = false;
};

// GPT-2's pattern, which ByteLevel pre-tokenizers cut by.
extern const std::string_view kGpt2Pattern;

}  // namespace kvfs::text
