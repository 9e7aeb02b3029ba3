#include "engine/text/jinja_builtins.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <numeric>

#include "engine/text/jinja_text.h"
#include "engine/text/utf8.h"

namespace kvfs::text::jinja {
namespace {

std::int64_t length_of(const Value& value) {
  if (value.text()) return static_cast<std::int64_t>(count_letters(*value.text()));
  if (value.list()) return static_cast<std::int64_t>(value.list()->items.size());
  return value.dict() ? static_cast<std::int64_t>(value.dict()->items.size()) : 0;
}

// VALUE.a.b, as map, sort and selectattr name attributes.
Value attribute_path(Value value, std::string_view path) {
  while (!path.empty()) {
    const std::size_t dot = std::min(path.find('.'), path.size());
    value = member_of(value, path.substr(0, dot));
    path.remove_prefix(std::min(dot + 1, path.size()));
  }
  return value;
}

Result<Value> pairs_of(const Value& value, Heap& heap) {
  if (value.is_undefined()) return heap.list();
  if (!value.dict()) return refuse(std::string("the items of a ") + value.type_name());
  std::vector<Value> items;
  for (const auto& [key, one] : value.dict()->items) {
    KVFS_TRY(heap.budget.spend(8));
    items.emplace_back(heap.tuple({key, one}));
  }
  return heap.list(std::move(items));
}

// Sorts by a key of each item; the first error of a comparison is the result's.
Result<Value> sorted(std::vector<Value> items, const std::vector<Value>& keys, bool reverse,
                     Heap& heap) {
  std::vector<std::size_t> order(items.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  Status failed;
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    if (!failed) return false;
    const auto before =
        reverse ? less(keys[b], keys[a], heap.budget) : less(keys[a], keys[b], heap.budget);
    if (!before) failed = fail(before.error());
    return before.value_or(false);
  });
  KVFS_TRY(failed);
  std::vector<Value> out;
  for (const std::size_t at : order) out.push_back(items[at]);
  return heap.list(std::move(out));
}

Value folded(const Value& value) {
  if (!value.text()) return value;
  return std::make_shared<const std::string>(changed_case(*value.text(), Case::kLower));
}

Result<Value> sort_filter(const Value& operand, const Arguments& given, Heap& heap) {
  const Value* reverse = given.get(0, "reverse");
  const Value* sensitive = given.get(1, "case_sensitive");
  const Value* attribute = given.get(2, "attribute");
  KVFS_ASSIGN(std::vector<Value> items, items_of(operand, heap));
  std::vector<Value> keys;
  for (const Value& item : items) {
    Value key = attribute && attribute->text() ? attribute_path(item, *attribute->text()) : item;
    keys.push_back(sensitive && sensitive->truth() ? std::move(key) : folded(key));
  }
  return sorted(std::move(items), keys, reverse && reverse->truth(), heap);
}

Result<Value> dictsort_filter(const Value& operand, Heap& heap) {
  KVFS_ASSIGN(const Value pairs, pairs_of(operand, heap));
  std::vector<Value> keys;
  for (const Value& pair : pairs.list()->items) keys.push_back(folded(pair.list()->items[0]));
  return sorted(pairs.list()->items, keys, false, heap);
}

// select, reject, selectattr, rejectattr.
Result<Value> select_filter(const Value& operand, const Arguments& given, bool by_attribute,
                            bool keep, Heap& heap) {
  const std::size_t first = by_attribute ? 1 : 0;
  for (std::size_t i = 0; i < std::min(given.positional.size(), first + 1); ++i) {
    if (!given.positional[i].text()) return refuse("a name that is no string");
  }
  if (given.positional.size() < first) return refuse("it needs an attribute's name");
  Arguments rest;
  for (std::size_t i = first + 1; i < given.positional.size(); ++i) {
    rest.positional.push_back(given.positional[i]);
  }
  KVFS_ASSIGN(const std::vector<Value> items, items_of(operand, heap));
  std::vector<Value> kept;
  for (const Value& item : items) {
    const Value tested = by_attribute ? attribute_path(item, *given.positional[0].text()) : item;
    bool holds = tested.truth();
    if (given.positional.size() > first) {
      KVFS_ASSIGN(holds, apply_test(*given.positional[first].text(), tested, rest, heap));
    }
    if (holds == keep) kept.push_back(item);
  }
  return heap.list(std::move(kept));
}

Result<Value> map_filter(const Value& operand, const Arguments& given, Heap& heap) {
  const Value* attribute = given.get(std::numeric_limits<std::size_t>::max(), "attribute");
  const Value* otherwise = given.get(std::numeric_limits<std::size_t>::max(), "default");
  if (!attribute && (given.positional.empty() || !given.positional[0].text())) {
    return refuse("map needs attribute= or a filter's name");
  }
  Arguments rest;
  for (std::size_t i = 1; i < given.positional.size(); ++i) {
    rest.positional.push_back(given.positional[i]);
  }
  KVFS_ASSIGN(const std::vector<Value> items, items_of(operand, heap));
  std::vector<Value> out;
  for (const Value& item : items) {
    if (attribute && attribute->text()) {
      Value value = attribute_path(item, *attribute->text());
      out.push_back(value.is_undefined() && otherwise ? *otherwise : std::move(value));
    } else {
      KVFS_ASSIGN(Value value, apply_filter(*given.positional[0].text(), item, rest, heap));
      out.push_back(std::move(value));
    }
  }
  return heap.list(std::move(out));
}

Result<Value> join_filter(const Value& operand, const Arguments& given, Heap& heap) {
  const Value* separator = given.get(0, "d");
  const Value* attribute = given.get(1, "attribute");
  KVFS_ASSIGN(const std::vector<Value> items, items_of(operand, heap));
  std::string between;
  if (separator) {
    KVFS_ASSIGN(between, str(*separator, heap.budget));
  }
  std::string out;
  for (std::size_t i = 0; i < items.size(); ++i) {
    const bool path = attribute && attribute->text();
    KVFS_ASSIGN(const std::string part,
                str(path ? attribute_path(items[i], *attribute->text()) : items[i], heap.budget));
    KVFS_TRY(heap.budget.spend(between.size()));
    if (i > 0) out += between;
    out += part;
  }
  return heap.text(out);
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

Result<Value> extreme_filter(bool largest, const Value& operand, Heap& heap) {
  KVFS_ASSIGN(const std::vector<Value> items, items_of(operand, heap));
  Value best;
  for (const Value& item : items) {
    if (best.is_undefined()) {
      best = item;
      continue;
    }
    KVFS_ASSIGN(const bool better,
                largest ? less(best, item, heap.budget) : less(item, best, heap.budget));
    if (better) best = item;
  }
  return best;
}

Result<Value> unique_filter(const Value& operand, Heap& heap) {
  KVFS_ASSIGN(const std::vector<Value> items, items_of(operand, heap));
  List* out = heap.list();
  for (const Value& item : items) {
    KVFS_ASSIGN(const bool known, contains(out, folded(item), heap.budget));
    if (!known) out->items.push_back(item);
  }
  return out;
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

Result<Value> reversed(const Value& operand, Heap& heap) {
  KVFS_ASSIGN(std::vector<Value> items, items_of(operand, heap));
  std::reverse(items.begin(), items.end());
  if (!operand.text()) return heap.list(std::move(items));
  std::string text;
  for (const Value& letter : items) text += *letter.text();
  return heap.text(text);
}

Result<Value> list_filter(std::string_view name, const Value& operand, const Arguments& given,
                          Heap& heap) {
  KVFS_ASSIGN(std::vector<Value> items, items_of(operand, heap));
  if (name == "list") return heap.list(std::move(items));
  if (name == "first") return items.empty() ? Value() : items.front();
  if (name == "last") return items.empty() ? Value() : items.back();
  if (name == "join") return join_filter(operand, given, heap);
  double sum = 0;
  bool whole = true;
  for (const Value& item : items) {
    if (!item.is_number()) return refuse("a sum of what are no numbers");
    whole = whole && !item.as<double>();
    sum += item.real();
  }
  return whole && std::abs(sum) < 9e15 ? Value(static_cast<std::int64_t>(sum)) : Value(sum);
}

template <class Names>
bool is_one_of(std::string_view name, const Names& names) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

Result<Value> range(const Arguments& given, Heap& heap) {
  std::array<std::int64_t, 3> parts = {0, 0, 1};
  const std::size_t count = given.positional.size();
  if (count < 1 || count > 3) return refuse("range takes one to three numbers");
  for (std::size_t i = 0; i < count; ++i) {
    if (!given.positional[i].as<std::int64_t>()) return refuse("range takes integers");
    parts[count == 1 ? 1 : i] = given.positional[i].integer();
  }
  if (parts[2] == 0) return refuse("range's step is 0");
  std::vector<Value> items;
  for (std::int64_t i = parts[0]; parts[2] > 0 ? i < parts[1] : i > parts[1];) {
    KVFS_TRY(heap.budget.spend(sizeof(Value)));
    items.emplace_back(i);
    if (__builtin_add_overflow(i, parts[2], &i)) break;
  }
  return heap.list(std::move(items));
}

Result<Value> formatted_time(const Arguments& given, std::time_t now, Heap& heap) {
  const Value* format = given.get(0, "format");
  if (!format || !format->text()) return refuse("strftime_now takes a format");
  std::tm parts{};
  localtime_r(&now, &parts);
  std::array<char, 256> out{};
  return heap.text(
      {out.data(), std::strftime(out.data(), out.size(), format->text()->c_str(), &parts)});
}

Result<Value> raise(const Arguments& given, Heap& heap) {
  const Value* message = given.get(0, "message");
  KVFS_ASSIGN(const std::string why, str(message ? *message : Value(), heap.budget));
  return refuse("the template refuses the conversation: " + why);
}

Result<Value> made_dict(const Arguments& given, bool is_namespace, Heap& heap) {
  if (!given.positional.empty()) return unknown("a dictionary made of another");
  Dict* dict = heap.dict();
  dict->is_namespace = is_namespace;
  for (const auto& [name, value] : given.named) dict->set(name, value);
  return dict;
}

Result<Value> dict_method(std::string_view name, const Value& object, const Arguments& given,
                          Heap& heap) {
  if (name == "items") return pairs_of(object, heap);
  if (name == "get") {
    const Value* key = given.get(0, "key");
    const Value* otherwise = given.get(1, "default");
    if (!key) return refuse("get() needs a key");
    KVFS_TRY(heap.budget.spend(object.dict()->items.size()));
    const Value* found = key->text() ? object.dict()->find(*key->text()) : nullptr;
    return found ? *found : otherwise ? *otherwise : Value(None{});
  }
  std::vector<Value> out;
  KVFS_TRY(heap.budget.spend(object.dict()->items.size()));
  for (const auto& [key, value] : object.dict()->items) out.push_back(name == "keys" ? key : value);
  return heap.list(std::move(out));
}

}  // namespace

Result<Value> apply_filter(std::string_view name, const Value& operand, const Arguments& given,
                           Heap& heap) {
  static constexpr std::string_view kOfText[] = {"string", "safe",    "trim",      "indent",
                                                 "escape", "e",       "upper",     "lower",
                                                 "title",  "replace", "capitalize"};
  static constexpr std::string_view kOfLists[] = {"list", "first", "last", "join", "sum"};
  if (is_one_of(name, kOfText)) return text_filter(name, operand, given, heap);
  if (is_one_of(name, kOfLists)) return list_filter(name, operand, given, heap);
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
  if (name == "items") return pairs_of(operand, heap);
  if (name == "dictsort") return dictsort_filter(operand, heap);
  if (name == "sort") return sort_filter(operand, given, heap);
  if (name == "reverse") return reversed(operand, heap);
  if (name == "unique") return unique_filter(operand, heap);
  if (name == "map") return map_filter(operand, given, heap);
  if (name == "min" || name == "max") return extreme_filter(name == "max", operand, heap);
  if (name == "select" || name == "reject" || name == "selectattr" || name == "rejectattr") {
    return select_filter(operand, given, name.ends_with("attr"), name.starts_with("select"), heap);
  }
  return unknown("the filter " + std::string(name) + " is not known");
}

Result<bool> apply_test(std::string_view name, const Value& operand, const Arguments& given,
                        Heap& heap) {
  Budget& budget = heap.budget;
  if (name == "defined") return !operand.is_undefined();
  if (name == "undefined") return operand.is_undefined();
  if (name == "none") return operand.is_none();
  if (name == "string") return operand.text() != nullptr;
  if (name == "number") return operand.is_number();
  if (name == "integer") return operand.as<std::int64_t>() != nullptr;
  if (name == "float") return operand.as<double>() != nullptr;
  if (name == "boolean") return operand.as<bool>() != nullptr;
  if (name == "true") return operand.as<bool>() && operand.truth();
  if (name == "false") return operand.as<bool>() && !operand.truth();
  if (name == "mapping") return operand.dict() && !operand.dict()->is_namespace;
  if (name == "callable") return operand.as<const Function*>() != nullptr;
  const bool walkable = operand.text() || operand.list() || operand.dict();
  if (name == "iterable" || name == "sequence") return walkable || operand.is_undefined();
  if (name == "odd" || name == "even" || name == "divisibleby") {
    const Value* by = given.get(0, "num");
    const std::int64_t divisor = by && by->as<std::int64_t>() ? by->integer() : 2;
    if (!operand.as<std::int64_t>() || divisor == 0)
      return refuse("is " + std::string(name) + " of no integer");
    const bool even = divisor == -1 || operand.integer() % divisor == 0;
    return name == "odd" ? !even : even;
  }
  const Value* other = given.get(0, "other");
  static constexpr std::string_view kOfTwo[] = {"equalto",  "eq", "sameas",      "ne", "in", "lt",
                                                "lessthan", "gt", "greaterthan", "le", "ge"};
  if (!is_one_of(name, kOfTwo)) return unknown("the test " + std::string(name) + " is not known");
  if (!other) return refuse("is " + std::string(name) + " needs a value");
  const auto negated = [](Result<bool> result) {
    return result.map([](bool holds) { return !holds; });
  };
  if (name == "ne") return negated(equal(operand, *other, budget));
  if (name == "in") return contains(*other, operand, budget);
  if (name == "lt" || name == "lessthan") return less(operand, *other, budget);
  if (name == "gt" || name == "greaterthan") return less(*other, operand, budget);
  if (name == "le") return negated(less(*other, operand, budget));
  if (name == "ge") return negated(less(operand, *other, budget));
  return equal(operand, *other, budget);
}

Result<Value> method_of(const Value& object, std::string_view name, Heap& heap) {
  static constexpr std::string_view kOfDicts[] = {"get", "items", "keys", "values"};
  const auto bound = [&](auto call) -> Value {
    return heap.function({std::string(name), std::move(call)});
  };
  KVFS_TRY(heap.budget.spend(sizeof(Function)));
  if (object.text() && is_text_method(name)) {
    const String* text = object.as<String>();
    return bound([text = *text, name = std::string(name), &heap](const Arguments& given) {
      return text_method(name, *text, given, heap);
    });
  }
  if (object.dict() && is_one_of(name, kOfDicts) && !object.dict()->is_namespace) {
    return bound([object, name = std::string(name), &heap](const Arguments& given) {
      return dict_method(name, object, given, heap);
    });
  }
  return Value();
}

Value member_of(const Value& object, std::string_view name) {
  const Value* found = object.dict() ? object.dict()->find(name) : nullptr;
  return found ? *found : Value(Undefined{std::string(name)});
}

Value global(std::string_view name, std::time_t now, Heap& heap) {
  const auto function = [&](auto call) -> Value {
    return heap.function({std::string(name), std::move(call)});
  };
  if (name == "range") {
    return function([&heap](const Arguments& given) { return range(given, heap); });
  }
  if (name == "namespace" || name == "dict") {
    return function([&heap, is_namespace = name == "namespace"](const Arguments& given) {
      return made_dict(given, is_namespace, heap);
    });
  }
  if (name == "raise_exception") {
    return function([&heap](const Arguments& given) { return raise(given, heap); });
  }
  if (name == "strftime_now") {
    return function(
        [&heap, now](const Arguments& given) { return formatted_time(given, now, heap); });
  }
  return Value();
}

}  // namespace kvfs::text::jinja
