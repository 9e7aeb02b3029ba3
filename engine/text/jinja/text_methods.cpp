#include "engine/text/jinja/text_methods.h"

#include <algorithm>
#include <array>
#include <limits>

#include <utf8proc.h>

#include "engine/text/utf8.h"

namespace kvfs::text::jinja {
namespace {

constexpr std::array<std::string_view, 15> kMethods = {
    "strip", "lstrip", "rstrip", "split", "rsplit", "startswith", "endswith",  "replace",
    "find",  "count",  "join",   "lower", "upper",  "title",      "capitalize"};

bool is_stripped(std::string_view letter, const std::string* letters) {
  if (letters) return letters->find(letter) != std::string::npos;
  return is_space(code_point(letter).code);
}

// The whole letter that ends a text.
std::string_view last_letter(std::string_view text) {
  std::size_t begin = text.size() - 1;
  while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0U) == 0x80) --begin;
  return text.substr(begin);
}

Result<Value> split(const std::string& text, const Arguments& given, bool from_right, Heap& heap) {
  const Value* separator = given.get(0, "sep");
  const Value* most = given.get(1, "maxsplit");
  std::int64_t left = most && most->as<std::int64_t>() ? most->integer() : -1;
  if (from_right && left >= 0) return unknown("rsplit with a limit");
  std::vector<Value> parts;
  std::string_view rest = text;
  const auto add = [&](std::string_view part) -> Status {
    KVFS_TRY(heap.budget.spend(sizeof(Value)));
    KVFS_ASSIGN(Value value, heap.text(part));
    parts.push_back(std::move(value));
    return {};
  };
  if (!separator || separator->is_none()) {
    for (rest = stripped(rest, nullptr, true, false); !rest.empty() && left != 0; --left) {
      std::size_t end = 0;
      while (end < rest.size() && !is_space(code_point(rest.substr(end)).code)) {
        end += code_point(rest.substr(end)).length;
      }
      KVFS_TRY(add(rest.substr(0, end)));
      rest = stripped(rest.substr(end), nullptr, true, false);
    }
    if (!rest.empty()) KVFS_TRY(add(rest));
    return heap.list(std::move(parts));
  }
  if (!separator->text() || separator->text()->empty()) return refuse("split by no string");
  for (; left != 0; --left) {
    const std::size_t at = rest.find(*separator->text());
    if (at == std::string_view::npos) break;
    KVFS_TRY(add(rest.substr(0, at)));
    rest.remove_prefix(at + separator->text()->size());
  }
  KVFS_TRY(add(rest));
  return heap.list(std::move(parts));
}

Result<Value> replace(const std::string& text, const Arguments& given, Heap& heap) {
  const Value* old = given.get(0, "old");
  const Value* fresh = given.get(1, "new");
  const Value* most = given.get(2, "count");
  if (!old || !fresh || !old->text() || !fresh->text()) return refuse("replace takes two strings");
  std::int64_t left = most && most->as<std::int64_t>() ? most->integer() : -1;
  if (old->text()->empty()) return unknown("replace of an empty string");
  std::string out;
  std::size_t from = 0;
  for (; left != 0; --left) {
    const std::size_t at = text.find(*old->text(), from);
    if (at == std::string::npos) break;
    KVFS_TRY(heap.budget.spend(at - from + fresh->text()->size() + 1));
    out.append(text, from, at - from).append(*fresh->text());
    from = at + old->text()->size();
  }
  return heap.text(out.append(text, from));
}

// startswith and endswith, of one string or any of several.
Result<Value> affix(const std::string& text, const Arguments& given, bool front, Heap& heap) {
  if (given.positional.size() != 1) return refuse("it takes one argument");
  const Value& wanted = given.positional[0];
  std::vector<Value> several = {wanted};
  if (wanted.list()) {
    KVFS_ASSIGN(several, items_of(wanted, heap));
  }
  for (const Value& one : several) {
    if (!one.text()) return refuse(std::string("it takes strings, not ") + one.type_name());
    if (front ? text.starts_with(*one.text()) : text.ends_with(*one.text())) return true;
  }
  return false;
}

Result<Value> search(std::string_view name, const std::string& text, const Arguments& given) {
  if (given.positional.size() != 1 || !given.positional[0].text()) {
    return refuse(std::string(name) + "() takes one string");
  }
  const std::string& wanted = *given.positional[0].text();
  if (name == "find") {
    const std::size_t at = text.find(wanted);
    if (at == std::string::npos) return std::int64_t{-1};
    return static_cast<std::int64_t>(count_letters(std::string_view(text).substr(0, at)));
  }
  if (wanted.empty()) return static_cast<std::int64_t>(count_letters(text) + 1);
  std::int64_t count = 0;
  for (std::size_t at = 0; (at = text.find(wanted, at)) != std::string::npos; at += wanted.size()) {
    ++count;
  }
  return count;
}

}  // namespace

bool is_text_method(std::string_view name) {
  return std::find(kMethods.begin(), kMethods.end(), name) != kMethods.end();
}

std::string_view stripped(std::string_view text, const std::string* letters, bool left,
                          bool right) {
  while (left && !text.empty()) {
    const std::string_view letter = text.substr(0, code_point(text).length);
    if (!is_stripped(letter, letters)) break;
    text.remove_prefix(letter.size());
  }
  while (right && !text.empty()) {
    const std::string_view letter = last_letter(text);
    if (!is_stripped(letter, letters)) break;
    text.remove_suffix(letter.size());
  }
  return text;
}

std::string changed_case(std::string_view text, Case wanted) {
  std::string out;
  bool start = true;  // of a word
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint point = code_point(text.substr(at));
    const auto code = static_cast<utf8proc_int32_t>(point.code);
    const bool upper = wanted == Case::kUpper || (wanted != Case::kLower && start);
    append_utf8(static_cast<std::uint32_t>(upper ? utf8proc_toupper(code) : utf8proc_tolower(code)),
                out);
    start = wanted == Case::kTitle && utf8proc_tolower(code) == utf8proc_toupper(code);
    at += point.length;
  }
  return out;
}

std::string escaped_for_html(std::string_view text) {
  constexpr std::string_view kLetters = "&<>\"'";
  constexpr std::array<std::string_view, 5> kSpelled = {"&amp;", "&lt;", "&gt;", "&#34;", "&#39;"};
  std::string out;
  for (const char c : text) {
    const std::size_t at = kLetters.find(c);
    at == std::string_view::npos ? out += c : out += kSpelled[at];
  }
  return out;
}

Result<Value> text_method(std::string_view name, const std::string& text, const Arguments& given,
                          Heap& heap) {
  KVFS_TRY(heap.budget.spend(text.size()));
  if (name == "strip" || name == "lstrip" || name == "rstrip") {
    const Value* letters = given.get(0, "chars");
    if (letters && !letters->text() && !letters->is_none()) return refuse("strip by no string");
    if (letters && letters->text())
      KVFS_TRY(heap.budget.spend(text.size() * letters->text()->size()));
    return heap.text(
        stripped(text, letters ? letters->text() : nullptr, name != "rstrip", name != "lstrip"));
  }
  if (name == "split" || name == "rsplit") return split(text, given, name == "rsplit", heap);
  if (name == "startswith" || name == "endswith") {
    return affix(text, given, name == "startswith", heap);
  }
  if (name == "replace") return replace(text, given, heap);
  if (name == "find" || name == "count") return search(name, text, given);
  if (name == "join") {
    if (given.positional.size() != 1) return refuse("join() takes one list");
    KVFS_ASSIGN(const std::vector<Value> parts, items_of(given.positional[0], heap));
    std::string out;
    for (std::size_t i = 0; i < parts.size(); ++i) {
      if (!parts[i].text()) return refuse("join() of what are no strings");
      KVFS_TRY(heap.budget.spend(parts[i].text()->size() + text.size()));
      out += (i > 0 ? text : "") + *parts[i].text();
    }
    return heap.text(out);
  }
  if (name == "lower") return heap.text(changed_case(text, Case::kLower));
  if (name == "upper") return heap.text(changed_case(text, Case::kUpper));
  if (name == "title") return heap.text(changed_case(text, Case::kTitle));
  if (name == "capitalize") return heap.text(changed_case(text, Case::kCapitalized));
  return unknown("." + std::string(name) + "() is not known");
}

}  // namespace kvfs::text::jinja
