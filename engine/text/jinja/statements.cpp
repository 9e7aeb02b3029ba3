// Statements: what a template writes, in which order, with which variables.
#include <utility>

#include "engine/text/jinja/filters.h"
#include "engine/text/jinja/interpreter.h"

namespace kvfs::text::jinja {
namespace {

constexpr std::size_t kLoopCost = 1024;  // about the bytes that a turn of a loop leaves on the heap

}  // namespace

Result<Interpreter::Flow> Interpreter::statements(const Node& node) {
  const Deeper deeper(depth_);
  if (depth_ > kDeepest) return located<Flow>(refuse("macros call each other too deep"), node);
  for (const Node& child : node.children) {
    KVFS_ASSIGN(const Flow flow, located(statement(child), child));
    if (flow != Flow::kOn) return flow;
  }
  return Flow::kOn;
}

Result<Interpreter::Flow> Interpreter::statement(const Node& node) {
  KVFS_TRY(heap_.budget.spend(kStepCost));
  switch (node.kind) {
    case NodeKind::kBody:
      return statements(node);
    case NodeKind::kText:
      KVFS_TRY(emit(node.text));
      return Flow::kOn;
    case NodeKind::kPrint: {
      KVFS_ASSIGN(const Value value, eval(node.children[0]));
      KVFS_ASSIGN(const std::string text, str(value, heap_.budget));
      KVFS_TRY(emit(text));
      return Flow::kOn;
    }
    case NodeKind::kIf:
      return run_if(node);
    case NodeKind::kFor:
      return run_for(node);
    case NodeKind::kBreak:
      return Flow::kBreak;
    case NodeKind::kContinue:
      return Flow::kContinue;
    default:
      KVFS_TRY(assign_statement(node));
      return Flow::kOn;
  }
}

Status Interpreter::assign_statement(const Node& node) {
  switch (node.kind) {
    case NodeKind::kSet: {
      KVFS_ASSIGN(Value value, eval(node.children[1]));
      return assign(node.children[0], std::move(value));
    }
    case NodeKind::kSetBlock: {
      KVFS_ASSIGN(const std::string text, captured(node.children[1]));
      KVFS_ASSIGN(Value value, heap_.text(text));
      return assign(node.children[0], std::move(value));
    }
    case NodeKind::kFilterBlock: {
      KVFS_ASSIGN(const std::string text, captured(node.children[1]));
      KVFS_ASSIGN(const Value operand, heap_.text(text));
      KVFS_ASSIGN(const Arguments given, arguments(node.children[0]));
      KVFS_ASSIGN(const Value value, apply_filter(node.children[0].text, operand, given, heap_));
      KVFS_ASSIGN(const std::string filtered, str(value, heap_.budget));
      return emit(filtered);
    }
    default:
      set(node.text, macro(node));
      return {};
  }
}

Status Interpreter::emit(std::string_view text) {
  KVFS_TRY(heap_.budget.spend(text.size()));
  *out_ += text;
  return {};
}

// What a body writes, in a scope of its own.
Result<std::string> Interpreter::captured(const Node& body) {
  std::string text;
  std::string* const outer = std::exchange(out_, &text);
  scopes_.emplace_back();
  Result<Flow> flow = statements(body);
  scopes_.pop_back();
  out_ = outer;
  if (!flow) return fail(std::move(flow).error());
  return text;
}

Result<Interpreter::Flow> Interpreter::run_if(const Node& node) {
  std::size_t i = 0;
  for (; i + 1 < node.children.size(); i += 2) {
    KVFS_ASSIGN(const Value condition, eval(node.children[i]));
    if (condition.truth()) return statements(node.children[i + 1]);
  }
  return i < node.children.size() ? statements(node.children[i]) : Result<Flow>(Flow::kOn);
}

Result<Interpreter::Flow> Interpreter::run_for(const Node& node) {
  const Node& target = node.children[0];
  KVFS_ASSIGN(const Value iterable, eval(node.children[1]));
  KVFS_ASSIGN(std::vector<Value> items, items_of(iterable, heap_));
  if (node.children.size() > 4) {
    std::vector<Value> kept;
    for (Value& item : items) {
      scopes_.emplace_back();
      Status assigned = assign(target, item);
      Result<Value> keep = assigned ? eval(node.children[4]) : Value();
      scopes_.pop_back();
      KVFS_TRY(assigned);
      if (!keep) return fail(std::move(keep).error());
      if (keep->truth()) kept.push_back(std::move(item));
    }
    items = std::move(kept);
  }
  if (items.empty()) return statements(node.children[3]);
  for (std::size_t i = 0; i < items.size(); ++i) {
    KVFS_TRY(heap_.budget.spend(kLoopCost));
    scopes_.emplace_back();
    set("loop", loop(items, i));
    const Status assigned = assign(target, items[i]);
    Result<Flow> flow = assigned ? statements(node.children[2]) : Result<Flow>(Flow::kOn);
    scopes_.pop_back();
    KVFS_TRY(assigned);
    if (!flow) return flow;
    if (*flow == Flow::kBreak) break;
  }
  return Flow::kOn;
}

Value Interpreter::loop(const std::vector<Value>& items, std::size_t at) {
  Dict* dict = heap_.dict();
  const auto count = static_cast<std::int64_t>(items.size());
  const auto index = static_cast<std::int64_t>(at);
  dict->set("index", index + 1);
  dict->set("index0", index);
  dict->set("revindex", count - index);
  dict->set("revindex0", count - index - 1);
  dict->set("first", at == 0);
  dict->set("last", at + 1 == items.size());
  dict->set("length", count);
  if (at > 0) dict->set("previtem", items[at - 1]);
  if (at + 1 < items.size()) dict->set("nextitem", items[at + 1]);
  return dict;
}

Status Interpreter::assign(const Node& target, Value value) {
  if (target.kind == NodeKind::kName) {
    set(target.text, std::move(value));
    return {};
  }
  if (target.kind == NodeKind::kAttribute) {
    KVFS_ASSIGN(const Value object, eval(target.children[0]));
    if (!object.dict() || !object.dict()->is_namespace) {
      return refuse("\"" + target.children[0].text + "\" is no namespace, its ." + target.text +
                    " cannot be set");
    }
    object.dict()->set(target.text, std::move(value));
    return {};
  }
  KVFS_ASSIGN(const std::vector<Value> parts, items_of(value, heap_));
  if (parts.size() != target.children.size()) {
    return refuse(std::to_string(parts.size()) + " values for " +
                  std::to_string(target.children.size()) + " names");
  }
  for (std::size_t i = 0; i < parts.size(); ++i) set(target.children[i].text, parts[i]);
  return {};
}

// A macro sees the template's own variables and its parameters.
Value Interpreter::macro(const Node& node) {
  return heap_.function({node.text, [this, &node](const Arguments& given) -> Result<Value> {
                           std::vector<Scope> outer = std::exchange(scopes_, {});
                           scopes_.push_back(outer.front());
                           KVFS_TRY(heap_.budget.spend(scopes_.front().size()));
                           scopes_.emplace_back();
                           Status bound = bind(node, given);
                           Result<std::string> text =
                               bound ? captured(node.children.back()) : std::string();
                           scopes_ = std::move(outer);
                           KVFS_TRY(bound);
                           if (!text) return fail(std::move(text).error());
                           return heap_.text(*text);
                         }});
}

Status Interpreter::bind(const Node& node, const Arguments& given) {
  if (given.positional.size() + 1 > node.children.size()) {
    return refuse("the macro " + node.text + " takes " + std::to_string(node.children.size() - 1) +
                  " arguments");
  }
  for (std::size_t i = 0; i + 1 < node.children.size(); ++i) {
    const Node& parameter = node.children[i];
    if (const Value* value = given.get(i, parameter.text)) {
      set(parameter.text, *value);
    } else if (parameter.kind == NodeKind::kKeyword) {
      KVFS_ASSIGN(Value otherwise, eval(parameter.children[0]));
      set(parameter.text, std::move(otherwise));
    } else {
      set(parameter.text, Undefined{parameter.text});
    }
  }
  return {};
}

}  // namespace kvfs::text::jinja
