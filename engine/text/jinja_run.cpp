// Walks a template's tree.
#include <array>
#include <charconv>
#include <limits>
#include <optional>
#include <unordered_map>

#include "engine/text/jinja.h"
#include "engine/text/jinja_builtins.h"
#include "engine/text/jinja_operators.h"

namespace kvfs::text::jinja {
namespace {

// What steps cost of the budget, about the bytes that they leave on the heap.
constexpr std::size_t kStepCost = 8;
constexpr std::size_t kLoopCost = 1024;
constexpr std::size_t kDeepest = 600;  // calls of the interpreter in each other; macros recurse

enum class Flow { kOn, kBreak, kContinue };

class Run {
 public:
  Run(std::time_t now, std::string& out) : now_(now), out_(&out) { scopes_.emplace_back(); }

  Heap& heap() { return heap_; }
  void set(const std::string& name, Value value) { scopes_.back()[name] = std::move(value); }
  Status body(const Node& node) {
    KVFS_TRY(statements(node));
    return {};
  }

 private:
  using Scope = std::unordered_map<std::string, Value>;

  struct Deeper {
    explicit Deeper(std::size_t& count) : count_(count) { ++count_; }
    ~Deeper() { --count_; }
    std::size_t& count_;
  };

  // Puts the line before an error that has none yet.
  template <class T>
  static Result<T> located(Result<T> result, const Node& node) {
    if (!result && result.error().what.empty()) result.error().what = at_line(node.line);
    return result;
  }

  Result<Flow> statements(const Node& node) {
    const Deeper deeper(depth_);
    if (depth_ > kDeepest) return located<Flow>(refuse("macros call each other too deep"), node);
    for (const Node& child : node.children) {
      KVFS_ASSIGN(const Flow flow, located(statement(child), child));
      if (flow != Flow::kOn) return flow;
    }
    return Flow::kOn;
  }

  Result<Flow> statement(const Node& node) {
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

  Status assign_statement(const Node& node) {
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

  Status emit(std::string_view text) {
    KVFS_TRY(heap_.budget.spend(text.size()));
    *out_ += text;
    return {};
  }

  // What a body writes, in a scope of its own.
  Result<std::string> captured(const Node& body) {
    std::string text;
    std::string* const outer = std::exchange(out_, &text);
    scopes_.emplace_back();
    Result<Flow> flow = statements(body);
    scopes_.pop_back();
    out_ = outer;
    if (!flow) return fail(std::move(flow).error());
    return text;
  }

  Result<Flow> run_if(const Node& node) {
    std::size_t i = 0;
    for (; i + 1 < node.children.size(); i += 2) {
      KVFS_ASSIGN(const Value condition, eval(node.children[i]));
      if (condition.truth()) return statements(node.children[i + 1]);
    }
    return i < node.children.size() ? statements(node.children[i]) : Result<Flow>(Flow::kOn);
  }

  Result<Flow> run_for(const Node& node) {
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

  Value loop(const std::vector<Value>& items, std::size_t at) {
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

  Status assign(const Node& target, Value value) {
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
  Value macro(const Node& node) {
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

  Status bind(const Node& node, const Arguments& given) {
    if (given.positional.size() + 1 > node.children.size()) {
      return refuse("the macro " + node.text + " takes " +
                    std::to_string(node.children.size() - 1) + " arguments");
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

  Result<Value> eval(const Node& node) {
    const Deeper deeper(depth_);
    if (depth_ > kDeepest) return located<Value>(refuse("macros call each other too deep"), node);
    KVFS_TRY(located<Value>(heap_.budget.spend(kStepCost).map([] { return Value(); }), node));
    return located(evaluated(node), node);
  }

  Result<Value> evaluated(const Node& node) {
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

  Result<Value> operation(const Node& node) {
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

  Result<Value> literal(const Node& node) {
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

  Result<Value> look_up(const std::string& name) {
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
      if (const auto found = scope->find(name); found != scope->end()) return found->second;
    }
    Value value = global(name, now_, heap_);
    if (value.is_undefined()) return Undefined{name};
    return value;
  }

  Result<Value> dict(const Node& node) {
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

  Result<Value> attribute(const Value& object, const Node& node) {
    if (object.is_undefined()) {
      return refuse("\"" + object.as<Undefined>()->name + "\" is undefined, it has no ." +
                    node.text);
    }
    KVFS_ASSIGN(Value method, method_of(object, node.text, heap_));
    if (!method.is_undefined()) return method;
    return member_of(object, node.text);
  }

  Result<Value> item(const Node& node) {
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

  Result<Value> slice(const Node& node) {
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

  Result<Arguments> arguments(const Node& node) {
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

  Result<Value> call(const Node& node) {
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

  Result<Value> compare(const Node& node) {
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

  const std::time_t now_;
  std::string* out_;
  Heap heap_;
  std::vector<Scope> scopes_;
  std::size_t depth_ = 0;
};

}  // namespace

Result<Template> Template::parse(std::string_view source) {
  KVFS_ASSIGN(Node body, jinja::parse(source));
  return Template(std::move(body));
}

Result<std::string> Template::render(const Conversation& conversation) const {
  std::string out;
  Run run(conversation.now, out);
  Heap& heap = run.heap();
  const auto text = [](const std::string& bytes) {
    return Value(std::make_shared<const std::string>(bytes));
  };
  List* messages = heap.list();
  for (const Message& message : conversation.messages) {
    Dict* dict = heap.dict();
    dict->set("role", text(message.role));
    dict->set("content", text(message.content));
    messages->items.push_back(dict);
  }
  run.set("messages", messages);
  run.set("add_generation_prompt", conversation.add_generation_prompt);
  run.set("bos_token", text(conversation.bos_token));
  run.set("eos_token", text(conversation.eos_token));
  run.set("tools", None{});
  run.set("documents", None{});
  KVFS_TRY(run.body(body_));
  return out;
}

}  // namespace kvfs::text::jinja
