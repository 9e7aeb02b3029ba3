// Jinja2's tests, "is defined" and the like. Errors carry no line: the interpreter adds it.
#pragma once

#include <string_view>

#include "engine/text/jinja/value.h"

namespace kvfs::text::jinja {

// kUnsupported for a test that is not known.
Result<bool> apply_test(std::string_view name, const Value& operand, const Arguments& given,
                        Heap& heap);

}  // namespace kvfs::text::jinja
