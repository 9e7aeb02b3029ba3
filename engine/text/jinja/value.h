// Values of a running template, and the budget that bounds a run.
//
// Lists, dictionaries and functions live in the run's Heap and are pointed to: a cycle (a namespace
// that holds itself) leaks nothing. One run, one thread. Everything that makes bytes or takes steps
// spends from the budget, so that a hostile template ends with an error instead of the machine.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "codec/base/result.h"

namespace kvfs::text::jinja {

struct List;
struct Dict;
struct Function;

struct Undefined {
  std::string name;  // for messages
};
struct None {};

// Strings are shared by all values that are copies of each other; nobody changes them.
using String = std::shared_ptr<const std::string>;

class Value {
 public:
  using Any = std::variant<Undefined, None, bool, std::int64_t, double, String, List*, Dict*,
                           const Function*>;
  Value() = default;
  Value(None none) : any_(none) {}
  Value(Undefined undefined) : any_(std::move(undefined)) {}
  Value(bool flag) : any_(flag) {}
  Value(std::int64_t number) : any_(number) {}
  Value(double number) : any_(number) {}
  Value(String text) : any_(std::move(text)) {}
  Value(List* list) : any_(list) {}
  Value(Dict* dict) : any_(dict) {}
  Value(const Function* function) : any_(function) {}

  template <class T>
  const T* as() const {
    return std::get_if<T>(&any_);
  }
  const std::string* text() const {
    const String* string = as<String>();
    return string ? string->get() : nullptr;
  }
  List* list() const { return as<List*>() ? *as<List*>() : nullptr; }
  Dict* dict() const { return as<Dict*>() ? *as<Dict*>() : nullptr; }
  bool is_undefined() const { return as<Undefined>() != nullptr; }
  bool is_none() const { return as<None>() != nullptr; }
  bool is_number() const { return as<std::int64_t>() || as<double>() || as<bool>(); }
  bool truth() const;
  double real() const;            // of a number
  std::int64_t integer() const;   // of a number that is no double
  const char* type_name() const;  // Python's

 private:
  Any any_;
};

struct List {
  std::vector<Value> items;
  bool tuple = false;
};
struct Dict {
  std::vector<std::pair<Value, Value>> items;  // keys are strings or numbers, in order of insertion
  bool is_namespace = false;                   // attributes may be set

  const Value* find(std::string_view key) const;
  void set(std::string_view key, Value value);
};
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  // The argument at a place or by its name; null where it was not given.
  const Value* get(std::size_t place, std::string_view name) const;
};
struct Function {
  std::string name;
  std::function<Result<Value>(const Arguments&)> call;
};

// What a run may still take.
class Budget {
 public:
  Status spend(std::size_t count) {
    if (count > left_) return used_up();
    left_ -= count;
    return {};
  }

 private:
  static tl::unexpected<Error> used_up();
  std::size_t left_ = std::size_t{64} << 20;  // steps and bytes made, together
};

class Heap {
 public:
  List* list(std::vector<Value> items = {}) { return &lists_.emplace_back(List{std::move(items)}); }
  List* tuple(std::vector<Value> items) {
    return &lists_.emplace_back(List{std::move(items), true});
  }
  Dict* dict() { return &dicts_.emplace_back(); }
  const Function* function(Function function) {
    return &functions_.emplace_back(std::move(function));
  }
  Result<Value> text(std::string_view bytes);
  Budget budget;

 private:
  std::deque<List> lists_;
  std::deque<Dict> dicts_;
  std::deque<Function> functions_;
};

// As Python prints them: str(), repr(), json.dumps(ensure_ascii=False). indent < 0: one line.
Result<std::string> str(const Value& value, Budget& budget);
Result<std::string> repr(const Value& value, Budget& budget);
Result<std::string> to_json(const Value& value, int indent, Budget& budget);

Result<bool> equal(const Value& a, const Value& b, Budget& budget, std::size_t depth = 0);
// a < b for numbers, strings and lists of them; an error for others, as in Python.
Result<bool> less(const Value& a, const Value& b, Budget& budget, std::size_t depth = 0);
Result<bool> contains(const Value& container, const Value& item, Budget& budget);
// The items of a list, keys of a dictionary, letters of a string; nothing for undefined.
Result<std::vector<Value>> items_of(const Value& value, Heap& heap);

std::size_t count_letters(std::string_view utf8);

inline bool is_one_of(std::string_view name, std::span<const std::string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

inline tl::unexpected<Error> refuse(std::string why) {  // the line is put before it further out
  return fail(ErrorCode::kInvalid, "", std::move(why));
}
inline tl::unexpected<Error> unknown(std::string why) {
  return fail(ErrorCode::kUnsupported, "", std::move(why));
}

}  // namespace kvfs::text::jinja
