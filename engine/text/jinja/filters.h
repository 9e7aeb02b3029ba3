// Jinja2's filters, as far as chat templates use them. Errors carry no line: the interpreter adds
// it.
#pragma once

#include <string_view>

#include "engine/text/jinja/value.h"

namespace kvfs::text::jinja {

// kUnsupported for a filter that is not known.
Result<Value> apply_filter(std::string_view name, const Value& operand, const Arguments& given,
                           Heap& heap);

}  // namespace kvfs::text::jinja
