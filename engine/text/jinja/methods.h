// What follows a value's dot: the methods of Python's str and dict, and a dictionary's members.
#pragma once

#include <string_view>

#include "engine/text/jinja/value.h"

namespace kvfs::text::jinja {

// VALUE.NAME(...); undefined where the value has no such method.
Result<Value> method_of(const Value& object, std::string_view name, Heap& heap);
// object.NAME or object[NAME] without methods; undefined where there is none.
Value member_of(const Value& object, std::string_view name);
// A dictionary's pairs, as a list of tuples.
Result<Value> pairs_of(const Value& value, Heap& heap);

}  // namespace kvfs::text::jinja
