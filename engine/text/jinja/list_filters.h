// The filters that walk what they are given: sort, map, select, join ...
#pragma once

#include <string_view>

#include "engine/text/jinja/value.h"

namespace kvfs::text::jinja {

bool is_list_filter(std::string_view name);
Result<Value> list_filter(std::string_view name, const Value& operand, const Arguments& given,
                          Heap& heap);

}  // namespace kvfs::text::jinja
