// UTF-8 by Unicode's table 3-7: no overlong forms, no surrogates, nothing past U+10FFFF.
// Pure functions, any thread.
#pragma once

#include <cstddef>
#include <string_view>

namespace kvfs::text {

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

}  // namespace kvfs::text
