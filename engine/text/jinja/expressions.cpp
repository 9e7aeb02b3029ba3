// Expressions, evaluated.
#include <array>
#include <charconv>
#include <limits>
#include <optional>

#include "engine/text/jinja/filters.h"
#include "engine/text/jinja/functions.h"
#include "engine/text/jinja/interpreter.h"
#include "engine/text/jinja/methods.h"
#include "engine/text/jinja/operators.h"
#include "engine/text/jinja/tests.h"

namespace kvfs::text::jinja {

Result<Value> Interpreter::eval(const Node& node) {
  const Deeper deeper(depth_);
  if (depth_ > kDeepest) return located<Value>(refuse("macros call each other too deep"), node);
  KVFS_TRY(located<Value>(heap_.budget.spend(kStepCost).map([] { return Value(); }), node));
  return located(evaluated(node), node);
}

Result<Value> Interpreter::evaluated(const Node& node) {
  switch (node.kind) {
    case NodeKind::kLiteral:
      return literal(node);
    case NodeKind::kName:
      return look_up(node.text);
    case NodeKind::kList: {
      std::vector<Value> items;
      for (const Node& child : node.children) {
        KVFS_ASSIGN(Value item, eval(child));
        items.push_back(std::move(item));
      }
      KVFS_TRY(heap_.budget.spend(sizeof(List) + items.size() * sizeof(Value)));
      return heap_.list(std::move(items));
    }
    case NodeKind::kDict:
      return dict(node);
    case NodeKind::kAttribute: {
      KVFS_ASSIGN(const Value object, eval(node.children[0]));
      return attribute(object, node);
    }
    case NodeKind::kItem:
      return item(node);
    case NodeKind::kSlice:
      return slice(node);
    case NodeKind::kCall:
      return call(node);
    case NodeKind::kFilter: {
      KVFS_ASSIGN(const Value operand, eval(node.children[0]));
      KVFS_ASSIGN(const Arguments given, arguments(node));
      return apply_filter(node.text, operand, given, heap_);
    }
    case NodeKind::kTest: {
      KVFS_ASSIGN(const Value operand, eval(node.children[0]));
      KVFS_ASSIGN(const Arguments given, arguments(node));
      return apply_test(node.text, operand, given, heap_);
    }
    default:
      return operation(node);
  }
}

Result<Value> Interpreter::operation(const Node& node) {
  switch (node.kind) {
    case NodeKind::kNot: {
      KVFS_ASSIGN(const Value operand, eval(node.children[0]));
      return !operand.truth();
    }
    case NodeKind::kNegative: {
      KVFS_ASSIGN(const Value operand, eval(node.children[0]));
      if (!operand.is_number()) return refuse(std::string("- of ") + operand.type_name());
      if (operand.as<double>()) return -operand.real();
      if (operand.integer() == std::numeric_limits<std::int64_t>::min()) return too_large();
      return -operand.integer();
    }
    case NodeKind::kAnd:
    case NodeKind::kOr: {
      KVFS_ASSIGN(Value left, eval(node.children[0]));
      if (left.truth() == (node.kind == NodeKind::kOr)) return left;
      return eval(node.children[1]);
    }
    case NodeKind::kConditional: {
      KVFS_ASSIGN(const Value condition, eval(node.children[1]));
      if (condition.truth()) return eval(node.children[0]);
      if (node.children[2].kind == NodeKind::kNothing) return Value();
      return eval(node.children[2]);
    }
    case NodeKind::kCompare:
      return compare(node);
    case NodeKind::kBinary: {
      KVFS_ASSIGN(const Value left, eval(node.children[0]));
      KVFS_ASSIGN(const Value right, eval(node.children[1]));
      return binary(node.text, left, right, heap_);
    }
    default:
      return refuse("this is no value");
  }
}

Result<Value> Interpreter::literal(const Node& node) {
  switch (node.literal) {
    case LiteralKind::kNone:
      return None{};
    case LiteralKind::kTrue:
      return true;
    case LiteralKind::kFalse:
      return false;
    case LiteralKind::kString:
      return heap_.text(node.text);
    default:
      break;
  }
  const char* end = node.text.data() + node.text.size();
  if (node.literal == LiteralKind::kInteger) {
    std::int64_t number = 0;
    const auto read = std::from_chars(node.text.data(), end, number);
    if (read.ec != std::errc() || read.ptr != end) return too_large();
    return number;
  }
  double number = 0;
  const auto read = std::from_chars(node.text.data(), end, number);
  if (read.ec != std::errc() || read.ptr != end) return too_large();
  return number;
}

Result<Value> Interpreter::look_up(const std::string& name) {
  for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
    if (const auto found = scope->find(name); found != scope->end()) return found->second;
  }
  Value value = global(name, now_, heap_);
  if (value.is_undefined()) return Undefined{name};
  return value;
}

Result<Value> Interpreter::dict(const Node& node) {
  Dict* out = heap_.dict();
  for (std::size_t i = 0; i < node.children.size(); i += 2) {
    KVFS_ASSIGN(const Value key, eval(node.children[i]));
    KVFS_ASSIGN(Value value, eval(node.children[i + 1]));
    if (!key.text()) return unknown(std::string("a dictionary's key of type ") + key.type_name());
    KVFS_TRY(heap_.budget.spend(sizeof(Value) * (out->items.size() + 1)));
    out->set(*key.text(), std::move(value));
  }
  return out;
}

Result<Value> Interpreter::attribute(const Value& object, const Node& node) {
  if (object.is_undefined()) {
    return refuse("\"" + object.as<Undefined>()->name + "\" is undefined, it has no ." + node.text);
  }
  KVFS_ASSIGN(Value method, method_of(object, node.text, heap_));
  if (!method.is_undefined()) return method;
  return member_of(object, node.text);
}

Result<Value> Interpreter::item(const Node& node) {
  KVFS_ASSIGN(const Value object, eval(node.children[0]));
  KVFS_ASSIGN(const Value index, eval(node.children[1]));
  if (object.is_undefined()) {
    return refuse("\"" + object.as<Undefined>()->name + "\" is undefined, it has no items");
  }
  if (index.text()) {
    if (object.dict()) {
      KVFS_TRY(heap_.budget.spend(object.dict()->items.size()));
      Value found = member_of(object, *index.text());
      if (!found.is_undefined()) return found;
    }
    return method_of(object, *index.text(), heap_);
  }
  if (index.as<std::int64_t>() && (object.list() || object.text())) {
    KVFS_ASSIGN(const std::vector<Value> items, items_of(object, heap_));
    const auto count = static_cast<std::int64_t>(items.size());
    const std::int64_t at = index.integer() + (index.integer() < 0 ? count : 0);
    if (at >= 0 && at < count) return items[static_cast<std::size_t>(at)];
  }
  return Undefined{node.children[0].text};
}

Result<Value> Interpreter::slice(const Node& node) {
  KVFS_ASSIGN(const Value object, eval(node.children[0]));
  std::array<std::optional<std::int64_t>, 3> parts;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (node.children[i + 1].kind == NodeKind::kNothing) continue;
    KVFS_ASSIGN(const Value value, eval(node.children[i + 1]));
    if (value.is_none()) continue;
    if (!value.as<std::int64_t>()) return refuse("a slice's part is no integer");
    parts[i] = value.integer();
  }
  return sliced(object, parts, heap_);
}

Result<Arguments> Interpreter::arguments(const Node& node) {
  Arguments given;
  for (std::size_t i = 1; i < node.children.size(); ++i) {
    const Node& child = node.children[i];
    if (child.kind == NodeKind::kKeyword) {
      KVFS_ASSIGN(Value value, eval(child.children[0]));
      given.named.emplace_back(child.text, std::move(value));
    } else {
      KVFS_ASSIGN(Value value, eval(child));
      given.positional.push_back(std::move(value));
    }
  }
  return given;
}

Result<Value> Interpreter::call(const Node& node) {
  KVFS_ASSIGN(const Value callee, eval(node.children[0]));
  const auto* function = callee.as<const Function*>();
  if (!function) {
    const std::string& name = node.children[0].text;
    if (callee.is_undefined()) return unknown("the function " + name + "() is not known");
    return refuse("\"" + name + "\" is a " + callee.type_name() + ", no function");
  }
  KVFS_ASSIGN(const Arguments given, arguments(node));
  return (*function)->call(given);
}

Result<Value> Interpreter::compare(const Node& node) {
  KVFS_ASSIGN(Value left, eval(node.children[0]));
  std::string_view operators = node.text;
  for (std::size_t i = 1; i < node.children.size(); ++i) {
    const std::string_view op = operators.substr(0, operators.find('\n'));
    operators.remove_prefix(op.size() + 1);
    KVFS_ASSIGN(Value right, eval(node.children[i]));
    KVFS_ASSIGN(const bool holds, compared(op, left, right, heap_.budget));
    if (!holds) return false;
    left = std::move(right);
  }
  return true;
}

}  // namespace kvfs::text::jinja
