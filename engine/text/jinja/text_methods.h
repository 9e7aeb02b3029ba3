// The methods of Python's str that chat templates call.
#pragma once

#include <string>
#include <string_view>

#include "engine/text/jinja/value.h"

namespace kvfs::text::jinja {

enum class Case { kLower, kUpper, kTitle, kCapitalized };

bool is_text_method(std::string_view name);
// kUnsupported for a method that is not known.
Result<Value> text_method(std::string_view name, const std::string& text, const Arguments& given,
                          Heap& heap);

// Without the letters of a set (white space where it is null) at its ends.
std::string_view stripped(std::string_view text, const std::string* letters, bool left, bool right);
std::string changed_case(std::string_view text, Case wanted);
std::string escaped_for_html(std::string_view text);

}  // namespace kvfs::text::jinja
