#include "engine/text/jinja/tests.h"

namespace kvfs::text::jinja {

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

}  // namespace kvfs::text::jinja
