// A PCRE2 pattern over valid UTF-8: compiled once (JIT where there is one), matched from any
// thread.
//
// A pattern that is not the program's own is limited in what one search may cost: where it would
// run away it finds nothing.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

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

  static Result<Regex> compile(const std::string& pattern, bool trusted);

  // The first match at or after `from`; the text must be valid UTF-8 and `from` a boundary in it.
  std::optional<Span> find(std::string_view text, std::size_t from, Scratch& scratch) const;

 private:
  struct Free {
    void operator()(pcre2_real_code_8* code) const;
    void operator()(pcre2_real_match_context_8* context) const;
  };
  std::unique_ptr<pcre2_real_code_8, Free> code_;
  std::unique_ptr<pcre2_real_match_context_8, Free> context_;
};

}  // namespace kvfs::text
