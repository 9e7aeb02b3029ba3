#include "engine/text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>
#include <limits>
#include <new>

namespace kvfs::text {
namespace {

constexpr std::uint32_t kGroups = 1;  // the match itself

PCRE2_SPTR bytes_of(std::string_view text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

}  // namespace

void Regex::Scratch::Free::operator()(pcre2_real_match_data_8* data) const {
  pcre2_match_data_free(data);
}
void Regex::Free::operator()(pcre2_real_code_8* code) const { pcre2_code_free(code); }
void Regex::Free::operator()(pcre2_real_match_context_8* context) const {
  pcre2_match_context_free(context);
}

Regex::Scratch::Scratch() : data_(pcre2_match_data_create(kGroups, nullptr)) {
  if (!data_) throw std::bad_alloc();
}

Result<Regex> Regex::compile(const std::string& pattern, bool trusted) {
  int number = 0;
  PCRE2_SIZE at = 0;
  Regex regex;
  regex.code_.reset(pcre2_compile(bytes_of(pattern), pattern.size(),
                                  PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &number, &at,
                                  nullptr));
  if (!regex.code_) {
    std::array<PCRE2_UCHAR, 256> why{};
    pcre2_get_error_message(number, why.data(), why.size());
    return fail(trusted ? ErrorCode::kInternal : ErrorCode::kInvalid,
                "the pattern " + pattern.substr(0, 200),
                reinterpret_cast<const char*>(why.data()) + (" at byte " + std::to_string(at)));
  }
  pcre2_jit_compile(regex.code_.get(), PCRE2_JIT_COMPLETE);  // without one it interprets
  regex.context_.reset(pcre2_match_context_create(nullptr));
  if (!regex.context_) throw std::bad_alloc();
  // A run of millions of spaces is walked back legitimately, so own patterns have no limit, and a
  // file's may take about a second.
  constexpr std::uint32_t kMostSteps = 50'000'000;
  constexpr std::uint32_t kMostHeap = 128 * 1024;  // KiB
  pcre2_set_match_limit(regex.context_.get(),
                        trusted ? std::numeric_limits<std::uint32_t>::max() : kMostSteps);
  if (!trusted) pcre2_set_heap_limit(regex.context_.get(), kMostHeap);
  return regex;
}

std::optional<Span> Regex::find(std::string_view text, std::size_t from, Scratch& scratch) const {
  const int found = pcre2_match(code_.get(), bytes_of(text), text.size(), from, PCRE2_NO_UTF_CHECK,
                                scratch.data_.get(), context_.get());
  if (found < 0) return std::nullopt;
  const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(scratch.data_.get());
  if (ends[0] < from || ends[1] < ends[0]) return std::nullopt;  // \K can say so
  return Span{ends[0], ends[1]};
}

}  // namespace kvfs::text
