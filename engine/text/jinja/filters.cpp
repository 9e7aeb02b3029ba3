#include "engine/text/jinja/filters.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "engine/text/jinja/list_filters.h"
#include "engine/text/jinja/text_methods.h"

namespace kvfs::text::jinja {
namespace {

std::int64_t length_of(const Value& value) {
  if (value.text()) return static_cast<std::int64_t>(count_letters(*value.text()));
  if (value.list()) return static_cast<std::int64_t>(value.list()->items.size());
  return value.dict() ? static_cast<std::int64_t>(value.dict()->items.size()) : 0;
}

Result<Value> number_filter(std::string_view name, const Value& operand, const Arguments& given) {
  const bool whole = name == "int";
  if (operand.is_number()) {
    if (!whole) return operand.real();
    if (!operand.as<double>()) return operand.integer();
    if (!(std::abs(operand.real()) < 9e18)) return refuse("a number gets too large");
    return static_cast<std::int64_t>(operand.real());
  }
  const Value* otherwise = given.get(0, "default");
  const Value missing = otherwise ? *otherwise : whole ? Value(std::int64_t{0}) : Value(0.0);
  if (!operand.text()) return missing;
  const std::string text(stripped(*operand.text(), nullptr, true, true));
  const char* end = text.data() + text.size();
  double real = 0;
  const auto read = std::from_chars(text.data(), end, real);
  if (read.ec != std::errc() || read.ptr != end) return missing;
  if (!whole) return real;
  return std::abs(real) < 9e15 ? Value(static_cast<std::int64_t>(real)) : missing;
}

Result<Value> indent_filter(const std::string& text, const Arguments& given, Heap& heap) {
  const Value* width = given.get(0, "width");
  const Value* first = given.get(1, "first");
  const std::int64_t count = width && width->as<std::int64_t>() ? width->integer() : 4;
  if (count < 0 || count > 1000) return refuse("an indent of " + std::to_string(count));
  const std::string blanks(static_cast<std::size_t>(count), ' ');
  std::string out = first && first->truth() ? blanks : "";
  for (std::size_t i = 0; i < text.size(); ++i) {
    out += text[i];
    if (text[i] != '\n' || i + 1 == text.size() || text[i + 1] == '\n') continue;
    KVFS_TRY(heap.budget.spend(blanks.size()));
    out += blanks;
  }
  return heap.text(out);
}

Result<Value> text_filter(std::string_view name, const Value& operand, const Arguments& given,
                          Heap& heap) {
  KVFS_ASSIGN(const std::string text, str(operand, heap.budget));
  if (name == "string" || name == "safe") return heap.text(text);
  if (name == "trim") return text_method("strip", text, given, heap);
  if (name == "indent") return indent_filter(text, given, heap);
  if (name == "escape" || name == "e") return heap.text(escaped_for_html(text));
  return text_method(name, text, given, heap);
}

}  // namespace

Result<Value> apply_filter(std::string_view name, const Value& operand, const Arguments& given,
                           Heap& heap) {
  static constexpr std::string_view kOfText[] = {"string", "safe",    "trim",      "indent",
                                                 "escape", "e",       "upper",     "lower",
                                                 "title",  "replace", "capitalize"};
  if (is_one_of(name, kOfText)) return text_filter(name, operand, given, heap);
  if (is_list_filter(name)) return list_filter(name, operand, given, heap);
  if (name == "length" || name == "count") {
    if (operand.is_number() || operand.is_none()) {
      return refuse(std::string("the length of a ") + operand.type_name());
    }
    return length_of(operand);
  }
  if (name == "default" || name == "d") {
    const Value* value = given.get(0, "default_value");
    const Value* falsy = given.get(1, "boolean");
    const bool missing = operand.is_undefined() || (falsy && falsy->truth() && !operand.truth());
    return !missing ? operand : value ? *value : Value(std::make_shared<const std::string>());
  }
  if (name == "tojson") {
    const Value* indent = given.get(1, "indent");
    KVFS_ASSIGN(const std::string json,
                to_json(operand,
                        indent && indent->as<std::int64_t>()
                            ? static_cast<int>(std::clamp<std::int64_t>(indent->integer(), 0, 16))
                            : -1,
                        heap.budget));
    return heap.text(json);
  }
  if (name == "int" || name == "float") return number_filter(name, operand, given);
  if (name == "abs") {
    if (!operand.is_number()) return refuse(std::string("abs of ") + operand.type_name());
    if (operand.as<double>()) return std::abs(operand.real());
    return operand.integer() == std::numeric_limits<std::int64_t>::min()
               ? Result<Value>(refuse("a number gets too large"))
               : Value(std::abs(operand.integer()));
  }
  return unknown("the filter " + std::string(name) + " is not known");
}

}  // namespace kvfs::text::jinja
