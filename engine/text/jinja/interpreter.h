// Walks a template's tree: statements (statements.cpp) write text and set variables, expressions
// (expressions.cpp) give values of the run's heap. One run, one thread. Errors name the line.
#pragma once

#include <ctime>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/text/jinja/syntax.h"
#include "engine/text/jinja/value.h"

namespace kvfs::text::jinja {

class Interpreter {
 public:
  Interpreter(std::time_t now, std::string& out) : now_(now), out_(&out) { scopes_.emplace_back(); }

  Heap& heap() { return heap_; }
  void set(const std::string& name, Value value) { scopes_.back()[name] = std::move(value); }
  Status run(const Node& body) {
    KVFS_TRY(statements(body));
    return {};
  }

 private:
  enum class Flow { kOn, kBreak, kContinue };
  using Scope = std::unordered_map<std::string, Value>;

  static constexpr std::size_t kStepCost = 8;   // of a step, about the bytes that it leaves behind
  static constexpr std::size_t kDeepest = 600;  // calls in each other; macros recurse
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

  Result<Flow> statements(const Node& node);
  Result<Flow> statement(const Node& node);
  Status assign_statement(const Node& node);
  Status emit(std::string_view text);
  Result<std::string> captured(const Node& body);
  Result<Flow> run_if(const Node& node);
  Result<Flow> run_for(const Node& node);
  Value loop(const std::vector<Value>& items, std::size_t at);
  Status assign(const Node& target, Value value);
  Value macro(const Node& node);
  Status bind(const Node& node, const Arguments& given);

  Result<Value> eval(const Node& node);
  Result<Value> evaluated(const Node& node);
  Result<Value> operation(const Node& node);
  Result<Value> literal(const Node& node);
  Result<Value> look_up(const std::string& name);
  Result<Value> dict(const Node& node);
  Result<Value> attribute(const Value& object, const Node& node);
  Result<Value> item(const Node& node);
  Result<Value> slice(const Node& node);
  Result<Arguments> arguments(const Node& node);
  Result<Value> call(const Node& node);
  Result<Value> compare(const Node& node);

  const std::time_t now_;
  std::string* out_;
  Heap heap_;
  std::vector<Scope> scopes_;
  std::size_t depth_ = 0;
};

}  // namespace kvfs::text::jinja
