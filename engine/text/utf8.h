// UTF-8 by Unicode's table 3-7: no overlong forms, no surrogates, nothing past U+10FFFF.
// Pure functions, any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace kvfs::text {

inline constexpr std::string_view kMetaspace = "\xE2\x96\x81";    // ▁, U+2581
inline constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

// What the front of a text is.
struct Utf8Front {
  std::size_t length =
      0;               // bytes of the sequence, or of the longest part of it that was right (≥ 1)
  bool valid = false;  // a whole sequence
  bool incomplete = false;  // right so far, but the text ends in it
};
Utf8Front utf8_front(std::string_view text);  // text must not be empty

// Bytes up to the first sequence that is not valid; the text's size where all is.
std::size_t valid_utf8_prefix(std::string_view text);

// The code point that starts a text, which must be a whole sequence there.
struct CodePoint {
  std::uint32_t code = 0;
  std::size_t length = 0;  // bytes
};
CodePoint code_point(std::string_view text);

// Appends a code point; false, and nothing appended, for surrogates and what is past U+10FFFF.
bool append_utf8(std::uint32_t code, std::string& out);

// What Python's str.strip takes away, and Unicode's White_Space but for U+001C to U+001F.
bool is_space(std::uint32_t code);

}  // namespace kvfs::text
