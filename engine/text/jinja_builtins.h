// Jinja2's filters, tests and functions, and the methods of Python's str and dict, as far as chat
// templates use them. Errors carry no line: the interpreter adds it.
#pragma once

#include <ctime>
#include <string_view>

#include "engine/text/jinja_value.h"

namespace kvfs::text::jinja {

Result<Value> apply_filter(std::string_view name, const Value& operand, const Arguments& arguments,
                           Heap& heap);
Result<bool> apply_test(std::string_view name, const Value& operand, const Arguments& arguments,
                        Heap& heap);
// VALUE.NAME(...); undefined where the value has no such method.
Result<Value> method_of(const Value& object, std::string_view name, Heap& heap);
// object.NAME or object[NAME] without methods; undefined where there is none.
Value member_of(const Value& object, std::string_view name);
// A function of every template: range, namespace, raise_exception ...; undefined for others.
Value global(std::string_view name, std::time_t now, Heap& heap);

}  // namespace kvfs::text::jinja
