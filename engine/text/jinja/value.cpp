#include "engine/text/jinja/value.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "engine/text/utf8.h"

namespace kvfs::text::jinja {
namespace {

constexpr std::size_t kDeepest = 64;  // of values in values that are printed or compared

bool is_string(const Value& value) { return value.text() != nullptr; }

std::string printed(double number) {
  if (std::isnan(number)) return "nan";
  if (std::isinf(number)) return number < 0 ? "-inf" : "inf";
  std::array<char, 40> digits{};
  const bool plain = number == 0 || (std::abs(number) >= 1e-4 && std::abs(number) < 1e16);
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), number,
                                 plain ? std::chars_format::fixed : std::chars_format::scientific);
  std::string out(digits.data(), end.ptr);
  if (plain && out.find('.') == std::string::npos) out += ".0";
  return out;
}

void escape_hex(std::uint32_t code, char kind, int digits, std::string& out) {
  constexpr std::string_view kHex = "0123456789abcdef";
  out += '\\';
  out += kind;
  for (int i = digits - 1; i >= 0; --i) out += kHex[code >> (4 * i) & 0xFU];
}

std::string quoted_for_python(std::string_view text) {
  const char quote =
      text.find('\'') != std::string_view::npos && text.find('"') == std::string_view::npos ? '"'
                                                                                            : '\'';
  std::string out(1, quote);
  for (const char c : text) {
    if (c == quote || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n' || c == '\t' || c == '\r') {
      out += c == '\n' ? "\\n" : c == '\t' ? "\\t" : "\\r";
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
      escape_hex(static_cast<unsigned char>(c), 'x', 2, out);
    } else {
      out += c;
    }
  }
  return out + quote;
}

std::string quoted_for_json(std::string_view text) {
  constexpr std::string_view kSpecial = "\n\t\r\b\f\"\\";
  constexpr std::string_view kSpelled = "ntrbf\"\\";
  std::string out = "\"";
  for (const char c : text) {
    if (const std::size_t at = kSpecial.find(c); at != std::string_view::npos) {
      out += '\\';
      out += kSpelled[at];
    } else if (static_cast<unsigned char>(c) < 0x20) {
      escape_hex(static_cast<unsigned char>(c), 'u', 4, out);
    } else {
      out += c;
    }
  }
  return out + "\"";
}

// Writes one value, Python's way or JSON's.
class Printer {
 public:
  Printer(Budget& budget, bool json, int indent) : budget_(budget), json_(json), indent_(indent) {}

  Status print(const Value& value, std::size_t depth) {
    if (depth > kDeepest) return refuse("values are nested too deep to print");
    if (const std::string* text = value.text()) {
      KVFS_TRY(budget_.spend(text->size()));
      return add(json_ ? quoted_for_json(*text) : quoted_for_python(*text));
    }
    if (value.list()) return print_list(*value.list(), depth);
    if (value.dict()) return print_dict(*value.dict(), depth);
    if (value.is_none()) return add(json_ ? "null" : "None");
    if (const bool* flag = value.as<bool>()) {
      return add(json_ ? (*flag ? "true" : "false") : (*flag ? "True" : "False"));
    }
    if (const auto* number = value.as<std::int64_t>()) return add(std::to_string(*number));
    if (const auto* number = value.as<double>()) return add(printed(*number));
    if (json_) return refuse(std::string("a value of type ") + value.type_name() + " is no JSON");
    return add(value.is_undefined() ? "Undefined" : "<function>");
  }

  std::string out;

 private:
  Status add(std::string_view text) {
    KVFS_TRY(budget_.spend(text.size() + 1));
    out += text;
    return {};
  }
  Status new_line(std::size_t depth) {
    if (indent_ < 0) return {};
    return add("\n" + std::string(static_cast<std::size_t>(indent_) * depth, ' '));
  }
  Status separate(bool first, std::size_t depth) {
    if (!first) KVFS_TRY(add(indent_ < 0 ? ", " : ","));
    return new_line(depth);
  }
  Status print_list(const List& list, std::size_t depth) {
    const bool round = list.tuple && !json_;
    KVFS_TRY(add(round ? "(" : "["));
    for (std::size_t i = 0; i < list.items.size(); ++i) {
      KVFS_TRY(separate(i == 0, depth + 1));
      KVFS_TRY(print(list.items[i], depth + 1));
    }
    if (round && list.items.size() == 1) KVFS_TRY(add(","));
    if (!list.items.empty()) KVFS_TRY(new_line(depth));
    return add(round ? ")" : "]");
  }
  Status print_dict(const Dict& dict, std::size_t depth) {
    KVFS_TRY(add("{"));
    for (std::size_t i = 0; i < dict.items.size(); ++i) {
      KVFS_TRY(separate(i == 0, depth + 1));
      const auto& [key, value] = dict.items[i];
      if (json_ && !is_string(key)) {
        KVFS_TRY(add("\""));
        KVFS_TRY(print(key, depth + 1));
        KVFS_TRY(add("\""));
      } else {
        KVFS_TRY(print(key, depth + 1));
      }
      KVFS_TRY(add(": "));
      KVFS_TRY(print(value, depth + 1));
    }
    if (!dict.items.empty()) KVFS_TRY(new_line(depth));
    return add("}");
  }

  Budget& budget_;
  const bool json_;
  const int indent_;
};

}  // namespace

bool Value::truth() const {
  if (const bool* flag = as<bool>()) return *flag;
  if (const auto* number = as<std::int64_t>()) return *number != 0;
  if (const auto* number = as<double>()) return *number != 0;
  if (const std::string* string = text()) return !string->empty();
  if (list()) return !list()->items.empty();
  if (dict()) return dict()->is_namespace || !dict()->items.empty();
  return as<const Function*>() != nullptr;
}

double Value::real() const {
  const double* number = as<double>();
  return number ? *number : static_cast<double>(integer());
}

std::int64_t Value::integer() const {
  const bool* flag = as<bool>();
  return flag ? (*flag ? 1 : 0) : *as<std::int64_t>();
}

const char* Value::type_name() const {
  if (is_undefined()) return "undefined";
  if (is_none()) return "none";
  if (as<bool>()) return "bool";
  if (as<std::int64_t>()) return "int";
  if (as<double>()) return "float";
  if (text()) return "str";
  if (list()) return list()->tuple ? "tuple" : "list";
  return dict() ? "dict" : "function";
}

const Value* Dict::find(std::string_view key) const {
  for (const auto& [name, value] : items) {
    if (is_string(name) && *name.text() == key) return &value;
  }
  return nullptr;
}

void Dict::set(std::string_view key, Value value) {
  for (auto& [name, old] : items) {
    if (is_string(name) && *name.text() == key) {
      old = std::move(value);
      return;
    }
  }
  items.emplace_back(std::make_shared<const std::string>(key), std::move(value));
}

const Value* Arguments::get(std::size_t place, std::string_view name) const {
  if (place < positional.size()) return &positional[place];
  for (const auto& [key, value] : named) {
    if (key == name) return &value;
  }
  return nullptr;
}

tl::unexpected<Error> Budget::used_up() {
  return refuse("it takes more steps or makes more text than a chat template may");
}

Result<Value> Heap::text(std::string_view bytes) {
  KVFS_TRY(budget.spend(bytes.size() + sizeof(std::string)));
  return Value(std::make_shared<const std::string>(bytes));
}

Result<std::string> str(const Value& value, Budget& budget) {
  if (const std::string* text = value.text()) {
    KVFS_TRY(budget.spend(text->size()));
    return *text;
  }
  if (value.is_undefined()) return std::string();
  return repr(value, budget);
}

Result<std::string> repr(const Value& value, Budget& budget) {
  Printer printer(budget, false, -1);
  KVFS_TRY(printer.print(value, 0));
  return std::move(printer.out);
}

Result<std::string> to_json(const Value& value, int indent, Budget& budget) {
  Printer printer(budget, true, std::min(indent, 16));
  KVFS_TRY(printer.print(value, 0));
  return std::move(printer.out);
}

Result<bool> equal(const Value& a, const Value& b, Budget& budget, std::size_t depth) {
  KVFS_TRY(budget.spend(8));
  if (depth > kDeepest) return refuse("values are nested too deep to compare");
  if (a.is_number() && b.is_number()) {
    if (a.as<double>() || b.as<double>()) return a.real() == b.real();
    return a.integer() == b.integer();
  }
  if (a.text() && b.text()) return *a.text() == *b.text();
  if (a.list() && b.list()) {
    const auto& left = a.list()->items;
    const auto& right = b.list()->items;
    if (left.size() != right.size() || a.list()->tuple != b.list()->tuple) return false;
    for (std::size_t i = 0; i < left.size(); ++i) {
      KVFS_ASSIGN(const bool same, equal(left[i], right[i], budget, depth + 1));
      if (!same) return false;
    }
    return true;
  }
  if (a.dict() && b.dict()) {
    if (a.dict() == b.dict()) return true;
    if (a.dict()->items.size() != b.dict()->items.size()) return false;
    for (const auto& [key, value] : a.dict()->items) {
      const Value* other = nullptr;
      for (const auto& [name, candidate] : b.dict()->items) {
        KVFS_ASSIGN(const bool same, equal(key, name, budget, depth + 1));
        if (same) other = &candidate;
      }
      if (!other) return false;
      KVFS_ASSIGN(const bool same, equal(value, *other, budget, depth + 1));
      if (!same) return false;
    }
    return true;
  }
  return (a.is_none() && b.is_none()) || (a.is_undefined() && b.is_undefined());
}

Result<bool> less(const Value& a, const Value& b, Budget& budget, std::size_t depth) {
  KVFS_TRY(budget.spend(8));
  if (depth > kDeepest) return refuse("values are nested too deep to compare");
  if (a.is_number() && b.is_number()) {
    if (a.as<double>() || b.as<double>()) return a.real() < b.real();
    return a.integer() < b.integer();
  }
  if (a.text() && b.text()) return *a.text() < *b.text();
  if (a.list() && b.list()) {
    const auto& left = a.list()->items;
    const auto& right = b.list()->items;
    for (std::size_t i = 0; i < std::min(left.size(), right.size()); ++i) {
      KVFS_ASSIGN(const bool same, equal(left[i], right[i], budget, depth + 1));
      if (!same) return less(left[i], right[i], budget, depth + 1);
    }
    return left.size() < right.size();
  }
  return refuse(std::string("< between ") + a.type_name() + " and " + b.type_name());
}

Result<bool> contains(const Value& container, const Value& item, Budget& budget) {
  if (const std::string* text = container.text()) {
    if (!item.text()) {
      return refuse(std::string("in <string> with ") + item.type_name() + " on its left");
    }
    KVFS_TRY(budget.spend(text->size()));
    return text->find(*item.text()) != std::string::npos;
  }
  if (container.is_undefined()) return false;
  if (const List* list = container.list()) {
    for (const Value& one : list->items) {
      KVFS_ASSIGN(const bool same, equal(one, item, budget));
      if (same) return true;
    }
    return false;
  }
  if (const Dict* dict = container.dict()) {
    for (const auto& [key, value] : dict->items) {
      KVFS_ASSIGN(const bool same, equal(key, item, budget));
      if (same) return true;
    }
    return false;
  }
  return refuse(std::string("a value of type ") + container.type_name() + " holds nothing");
}

Result<std::vector<Value>> items_of(const Value& value, Heap& heap) {
  std::vector<Value> items;
  if (value.is_undefined()) return items;
  if (const List* list = value.list()) {
    KVFS_TRY(heap.budget.spend(list->items.size() * sizeof(Value)));
    return list->items;
  }
  if (const Dict* dict = value.dict()) {
    KVFS_TRY(heap.budget.spend(dict->items.size() * sizeof(Value)));
    for (const auto& [key, one] : dict->items) items.push_back(key);
    return items;
  }
  if (const std::string* text = value.text()) {
    KVFS_TRY(heap.budget.spend(text->size() * sizeof(Value)));
    for (std::size_t at = 0; at < text->size();) {
      const std::size_t length = utf8_front(std::string_view(*text).substr(at)).length;
      KVFS_ASSIGN(Value letter, heap.text(std::string_view(*text).substr(at, length)));
      items.push_back(std::move(letter));
      at += length;
    }
    return items;
  }
  return refuse(std::string("a value of type ") + value.type_name() + " cannot be walked");
}

std::size_t count_letters(std::string_view utf8) {
  return static_cast<std::size_t>(std::count_if(utf8.begin(), utf8.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0U) != 0x80;
  }));
}

}  // namespace kvfs::text::jinja
