#include "engine/text/jinja/operators.h"

#include <algorithm>
#include <cmath>

namespace kvfs::text::jinja {
namespace {

Result<Value> arithmetic(std::string_view op, const Value& left, const Value& right) {
  if (left.as<double>() || right.as<double>() || op == "/") {
    const double a = left.real();
    const double b = right.real();
    if (op == "+") return a + b;
    if (op == "-") return a - b;
    if (op == "*") return a * b;
    if (op == "**") return std::pow(a, b);
    if (b == 0) return refuse("a division by zero");
    if (op == "/") return a / b;
    if (op == "//") return std::floor(a / b);
    return a - b * std::floor(a / b);
  }
  const std::int64_t a = left.integer();
  const std::int64_t b = right.integer();
  std::int64_t out = 0;
  if (op == "+") return __builtin_add_overflow(a, b, &out) ? Result<Value>(too_large()) : out;
  if (op == "-") return __builtin_sub_overflow(a, b, &out) ? Result<Value>(too_large()) : out;
  if (op == "*") return __builtin_mul_overflow(a, b, &out) ? Result<Value>(too_large()) : out;
  if (op == "**") {
    if (b < 0) return std::pow(left.real(), right.real());
    out = 1;
    if (b > 63 && a != 0 && a != 1) return too_large();
    for (std::int64_t i = 0; i < std::min<std::int64_t>(b, 64); ++i) {
      if (__builtin_mul_overflow(out, a, &out)) return too_large();
    }
    return out;
  }
  if (b == 0) return refuse("a division by zero");
  if (b == -1)
    return op == "%" ? Result<Value>(std::int64_t{0}) : arithmetic("-", std::int64_t{0}, left);
  const std::int64_t down = a % b != 0 && (a < 0) != (b < 0) ? 1 : 0;  // Python rounds down
  return op == "%" ? a % b + down * b : a / b - down;
}

}  // namespace

Result<bool> compared(std::string_view op, const Value& left, const Value& right, Budget& budget) {
  const auto negated = [](Result<bool> result) {
    return result.map([](bool holds) { return !holds; });
  };
  if (op == "==") return equal(left, right, budget);
  if (op == "!=") return negated(equal(left, right, budget));
  if (op == "<") return less(left, right, budget);
  if (op == ">") return less(right, left, budget);
  if (op == "<=") return negated(less(right, left, budget));
  if (op == ">=") return negated(less(left, right, budget));
  if (op == "in") return contains(right, left, budget);
  return negated(contains(right, left, budget));
}

Result<Value> binary(std::string_view op, const Value& left, const Value& right, Heap& heap) {
  if (op == "~" || (op == "+" && left.text() && right.text())) {
    KVFS_ASSIGN(std::string text, str(left, heap.budget));
    KVFS_ASSIGN(const std::string more, str(right, heap.budget));
    return heap.text(text + more);
  }
  if (left.is_number() && right.is_number()) return arithmetic(op, left, right);
  if (op == "+" && left.list() && right.list()) {
    std::vector<Value> items = left.list()->items;
    const std::vector<Value>& more = right.list()->items;
    KVFS_TRY(heap.budget.spend((items.size() + more.size()) * sizeof(Value)));
    items.insert(items.end(), more.begin(), more.end());
    return heap.list(std::move(items));
  }
  if (op == "*" && left.text() && right.as<std::int64_t>()) {
    const auto times = static_cast<std::size_t>(std::max<std::int64_t>(right.integer(), 0));
    std::string text;
    for (std::size_t i = 0; i < times; ++i) {
      KVFS_TRY(heap.budget.spend(left.text()->size() + 1));
      text += *left.text();
    }
    return heap.text(text);
  }
  const std::string name = left.is_undefined()    ? left.as<Undefined>()->name
                           : right.is_undefined() ? right.as<Undefined>()->name
                                                  : std::string();
  if (!name.empty()) return refuse("\"" + name + "\" is undefined");
  return refuse(std::string(op) + " between " + left.type_name() + " and " + right.type_name());
}

Result<Value> sliced(const Value& object, const std::array<std::optional<std::int64_t>, 3>& parts,
                     Heap& heap) {
  if (!object.list() && !object.text()) {
    return refuse(std::string("a slice of ") + object.type_name());
  }
  KVFS_ASSIGN(const std::vector<Value> items, items_of(object, heap));
  const auto count = static_cast<std::int64_t>(items.size());
  const std::int64_t step = parts[2].value_or(1);
  if (step == 0) return refuse("a slice's step is 0");
  const std::int64_t low = step > 0 ? 0 : -1;
  const std::int64_t high = step > 0 ? count : count - 1;
  const auto place = [&](std::size_t i, std::int64_t otherwise) {
    if (!parts[i]) return otherwise;
    const std::int64_t at = *parts[i] < 0 ? *parts[i] + count : *parts[i];
    return std::clamp(at, low, high);
  };
  const std::int64_t from = place(0, step > 0 ? low : high);
  const std::int64_t to = place(1, step > 0 ? high : low);
  std::vector<Value> out;
  for (std::int64_t i = from; step > 0 ? i < to : i > to;) {
    out.push_back(items[static_cast<std::size_t>(i)]);
    if (step > count || step < -count) break;  // so that the sum cannot overflow
    i += step;
  }
  if (object.list()) return object.list()->tuple ? heap.tuple(out) : heap.list(out);
  std::string text;
  for (const Value& letter : out) text += *letter.text();
  return heap.text(text);
}

}  // namespace kvfs::text::jinja
