// The functions of every template: range, namespace, dict, raise_exception, strftime_now.
#pragma once

#include <ctime>
#include <string_view>

#include "engine/text/jinja/value.h"

namespace kvfs::text::jinja {

// Undefined for other names. now: strftime_now's, in local time.
Value global(std::string_view name, std::time_t now, Heap& heap);

}  // namespace kvfs::text::jinja
