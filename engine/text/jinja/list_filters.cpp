#include "engine/text/jinja/list_filters.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "engine/text/jinja/filters.h"
#include "engine/text/jinja/methods.h"
#include "engine/text/jinja/tests.h"
#include "engine/text/jinja/text_methods.h"

namespace kvfs::text::jinja {
namespace {

// VALUE.a.b, as map, sort and selectattr name attributes.
Value attribute_path(Value value, std::string_view path) {
  while (!path.empty()) {
    const std::size_t dot = std::min(path.find('.'), path.size());
    value = member_of(value, path.substr(0, dot));
    path.remove_prefix(std::min(dot + 1, path.size()));
  }
  return value;
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

Result<Value> reversed(const Value& operand, Heap& heap) {
  KVFS_ASSIGN(std::vector<Value> items, items_of(operand, heap));
  std::reverse(items.begin(), items.end());
  if (!operand.text()) return heap.list(std::move(items));
  std::string text;
  for (const Value& letter : items) text += *letter.text();
  return heap.text(text);
}

Result<Value> sum_filter(const Value& operand, Heap& heap) {
  KVFS_ASSIGN(const std::vector<Value> items, items_of(operand, heap));
  double sum = 0;
  bool whole = true;
  for (const Value& item : items) {
    if (!item.is_number()) return refuse("a sum of what are no numbers");
    whole = whole && !item.as<double>();
    sum += item.real();
  }
  return whole && std::abs(sum) < 9e15 ? Value(static_cast<std::int64_t>(sum)) : Value(sum);
}

}  // namespace

bool is_list_filter(std::string_view name) {
  static constexpr std::string_view kNames[] = {
      "list",   "first", "last", "join", "sum",    "sort",   "dictsort",   "items",     "reverse",
      "unique", "map",   "min",  "max",  "select", "reject", "selectattr", "rejectattr"};
  return is_one_of(name, kNames);
}

Result<Value> list_filter(std::string_view name, const Value& operand, const Arguments& given,
                          Heap& heap) {
  if (name == "join") return join_filter(operand, given, heap);
  if (name == "sum") return sum_filter(operand, heap);
  if (name == "items") return pairs_of(operand, heap);
  if (name == "dictsort") return dictsort_filter(operand, heap);
  if (name == "sort") return sort_filter(operand, given, heap);
  if (name == "reverse") return reversed(operand, heap);
  if (name == "unique") return unique_filter(operand, heap);
  if (name == "map") return map_filter(operand, given, heap);
  if (name == "min" || name == "max") return extreme_filter(name == "max", operand, heap);
  if (name.starts_with("select") || name.starts_with("reject")) {
    return select_filter(operand, given, name.ends_with("attr"), name.starts_with("select"), heap);
  }
  KVFS_ASSIGN(std::vector<Value> items, items_of(operand, heap));
  if (name == "list") return heap.list(std::move(items));
  if (items.empty()) return Value();
  return name == "first" ? items.front() : items.back();
}

}  // namespace kvfs::text::jinja
