// A PCRE2 pattern over valid UTF-8: compiled once (JIT where there is one), matched from any
// thread.
//
// Patterns are the program's own, so one that does not compile is a bug and says so at compile().
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "codec/base/result.h"

struct pcre2_real_code_8;
struct pcre2_real_match_context_8;
struct pcre2_real_match_data_8;

namespace kvfs::text {

struct Span {
  std::size_t begin = 0, end = 0;
};

class Regex {
 public:
  // Scratch of one thread's matching; not shared between threads.
  class Scratch {
   public:
    Scratch();

   private:
    friend class Regex;
    struct Free {
      void operator()(pcre2_real_match_data_8* data) const;
    };
    std::unique_ptr<pcre2_real_match_data_8, Free> data_;
  };

  static Result<Regex> compile(const std::string& pattern);

  // The first match at or after `from`; the text must be valid UTF-8 and `from` a boundary in it.
  std::optional<Span> find(std::string_view text, std::size_t from, Scratch& scratch) const;

  // The groups of a match that starts at `from` exactly (group 0 is the match; unset groups are
  // empty); empty when there is none. At most 7 groups.
  std::vector<std::string> groups_at(std::string_view text, std::size_t from) const;

 private:
  struct Free {
    void operator()(pcre2_real_code_8* code) const;
    void operator()(pcre2_real_match_context_8* context) const;
  };
  int match(std::string_view text, std::size_t from, std::uint32_t options, Scratch& scratch) const;

  std::unique_ptr<pcre2_real_code_8, Free> code_;
  std::unique_ptr<pcre2_real_match_context_8, Free> context_;
};

}  // namespace kvfs::text
