// Jinja's operators on values, as Python has them. Errors carry no line: the interpreter adds it.
#pragma once

#include <array>
#include <optional>
#include <string_view>

#include "engine/text/jinja/value.h"

namespace kvfs::text::jinja {

// == != < > <= >= in, and "not in".
Result<bool> compared(std::string_view op, const Value& left, const Value& right, Budget& budget);
// + - * / // % ** ~
Result<Value> binary(std::string_view op, const Value& left, const Value& right, Heap& heap);
// object[from:to:step] of a list or a string.
Result<Value> sliced(const Value& object, const std::array<std::optional<std::int64_t>, 3>& parts,
                     Heap& heap);

inline tl::unexpected<Error> too_large() { return refuse("a number gets too large"); }

}  // namespace kvfs::text::jinja
