// Normalizers: what is done to a text before it is cut into pieces, step by step, as
// tokenizer.json's "normalizer" and sentencepiece's normalizer_spec name it.
//
// Immutable once built: any thread. Linear in the text. Input and output are valid UTF-8.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/regex.h"
#include "engine/text/tokenizer.h"

namespace kvfs::text {

// sentencepiece's precompiled_charsmap: a double array (darts-clone's) over the strings that it
// replaces, and what they become.
class CharsMap {
 public:
  // The bytes as sentencepiece and tokenizers store them. Reading never leaves them, whatever they
  // say.
  static Result<CharsMap> read(std::string_view blob);

  struct Match {
    std::size_t length = 0;  // bytes replaced; 0: none
    std::string_view text;
  };
  Match longest(std::string_view text) const;
  Match shortest(std::string_view text) const;

 private:
  Match find(std::string_view text, bool longest) const;
  std::vector<std::uint32_t> units_;
  std::string strings_;  // each ends with a zero
};

struct NormalizerStep {
  enum class Kind {
    kNfc,
    kNfd,
    kNfkc,
    kNfkd,
    kLowercase,
    kStrip,             // white space at the ends, as `left` and `right` say
    kReplace,           // every `from`, or match of `pattern`, by `to`
    kPrefix,            // `to` before a text that is not empty
    kCharsMap,          // longest match at each place (sentencepiece)
    kCharsMapByLetter,  // whole graphemes, or else code points (tokenizers)
    kCollapse,          // runs of spaces to one, none at the front
    kWords,             // `to` before each word, no white space
    kTrimEnd,           // no `from` at the end
  };
  Kind kind = Kind::kNfc;
  std::string from, to;
  bool left = false, right = false;
  bool first_only = false;    // kPrefix: where the text begins, not after each added token
  bool unless_there = false;  // kPrefix: not before one
  std::optional<Regex> pattern;
  std::optional<CharsMap> map;
};

class Normalizer {
 public:
  void add(NormalizerStep step) { steps_.push_back(std::move(step)); }
  bool empty() const { return steps_.empty(); }

  std::string apply(std::string_view text, Before before) const;

 private:
  std::vector<NormalizerStep> steps_;
};

}  // namespace kvfs::text
