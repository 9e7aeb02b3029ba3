#include "engine/prune/policy.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace kvfs::prune {
namespace {

constexpr int kMost = 1 << 30;  // of any count

// ---- values

Status wrong(std::string_view value, std::string why) {
  return fail(ErrorCode::kInvalid, "value '" + std::string(value) + "'", std::move(why));
}

template <class Number>
Status read_number(std::string_view text, Number least, Number most, Number& out) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || !(value >= least)) {
    return wrong(text, "a number from " + std::to_string(least) + " on is wanted");
  }
  if (value > most) return wrong(text, std::to_string(most) + " at most");
  out = value;
  return {};
}

Status read(std::string_view text, int least, int& out) {
  return read_number(text, least, kMost, out);
}
Status read(std::string_view text, int, std::uint64_t& out) {
  return read_number(text, std::uint64_t{0}, ~std::uint64_t{0}, out);
}
Status read(std::string_view text, int least, double& out) {
  return read_number(text, static_cast<double>(least), 1.0, out);
}
Status read(std::string_view text, int, Amount& out) {
  Amount amount{.is_share = text.find_first_of(".e") != std::string_view::npos};
  if (amount.is_share) {
    KVFS_TRY(read_number(text, 0.0, 1.0, amount.value));
    if (amount.value == 0.0) return wrong(text, "nothing would stay");
  } else {
    int count = 0;
    KVFS_TRY(read_number(text, 1, kMost, count));
    amount.value = count;
  }
  out = amount;
  return {};
}
Status read(std::string_view text, int, Pooling& out) {
  if (text != "avg" && text != "max") return wrong(text, "avg or max is wanted");
  out = text == "avg" ? Pooling::kAverage : Pooling::kLargest;
  return {};
}
Status read(std::string_view text, int, Pyramid::Select& out) {
  if (text != "heads" && text != "mean") return wrong(text, "heads or mean is wanted");
  out = text == "heads" ? Pyramid::Select::kHeads : Pyramid::Select::kMean;
  return {};
}

template <class Number>
std::string shortest(Number value) {
  char text[32];
  return std::string(text, std::to_chars(text, std::end(text), value).ptr);
}
std::string write(int value) { return shortest(value); }
std::string write(std::uint64_t value) { return shortest(value); }
std::string write(double value) { return shortest(value); }
std::string write(Pooling value) { return value == Pooling::kAverage ? "avg" : "max"; }
std::string write(Pyramid::Select value) {
  return value == Pyramid::Select::kHeads ? "heads" : "mean";
}
std::string write(Amount amount) {
  if (!amount.is_share) return shortest(static_cast<std::int64_t>(amount.value));
  const std::string text = shortest(amount.value);
  return text.find_first_of(".e") == std::string::npos ? text + ".0" : text;
}

// ---- the methods' parameters, in the order in which they are written

template <class Visit>
void visit_parameters(KeepLast& rule, Visit visit) {
  visit("n", rule.n, 1);
  visit("sinks", rule.sinks, 0);
}
template <class Visit>
void visit_parameters(Pyramid& rule, Visit visit) {
  visit("window", rule.window, 1);
  visit("bottom", rule.bottom, 1);
  visit("top", rule.top, 1);
  visit("refresh", rule.refresh, 1);
  visit("start", rule.start, 1);
  visit("select", rule.select, 0);
}
template <class Visit>
void visit_window(ByWindow& rule, Visit visit) {
  visit("capacity", rule.capacity, 2);
  visit("window", rule.window, 1);
  visit("kernel", rule.kernel, 1);
  visit("pooling", rule.pooling, 0);
}
template <class Visit>
void visit_parameters(SnapKv& rule, Visit visit) {
  visit_window(rule, visit);
}
template <class Visit>
void visit_parameters(PyramidKv& rule, Visit visit) {
  visit_window(rule, visit);
  visit("beta", rule.beta, 1);
}
template <class Visit>
void visit_parameters(AdaKv& rule, Visit visit) {
  visit_window(rule, visit);
  visit("safeguard", rule.safeguard, 0);
}
template <class Visit>
void visit_parameters(ByAmount& rule, Visit visit) {
  visit("keep", rule.keep, 0);
}
template <class Visit>
void visit_parameters(Random& rule, Visit visit) {
  visit("keep", rule.keep, 0);
  visit("seed", rule.seed, 0);
}
template <class Visit>
void visit_parameters(Drop& rule, Visit visit) {
  visit("from", rule.from, 0);
  visit("to", rule.to, 0);
}

// ---- what contradicts itself

Status check(const auto&) { return {}; }
Status check(const Pyramid& rule) {
  if (rule.window <= std::max(rule.bottom, rule.top)) return {};
  return fail(
      ErrorCode::kInvalid, "window=" + write(rule.window),
      "it is wider than the budgets, bottom=" + write(rule.bottom) + " and top=" + write(rule.top),
      "narrow the window or raise bottom");
}
Status check_window(const ByWindow& rule) {
  if (rule.window >= rule.capacity) {
    return fail(ErrorCode::kInvalid, "window=" + write(rule.window),
                "it fills the capacity of " + write(rule.capacity), "narrow it");
  }
  if (rule.kernel % 2 == 0) {
    return fail(ErrorCode::kInvalid, "kernel=" + write(rule.kernel),
                "a neighbourhood has its entry in the middle", "take an odd number");
  }
  return {};
}
Status check(const SnapKv& rule) { return check_window(rule); }
Status check(const PyramidKv& rule) { return check_window(rule); }
Status check(const AdaKv& rule) { return check_window(rule); }
Status check(const Drop& rule) {
  if (rule.from < rule.to) return {};
  return fail(ErrorCode::kInvalid, "drop from=" + write(rule.from) + " to=" + write(rule.to),
              "there is nothing between", "name the first position and the one after the last");
}

// ---- methods by name

constexpr std::array<std::string_view, std::variant_size_v<Method>> kNames = {
    "keep_last", "pyramid", "pyramidkv", "snapkv", "adakv",  "h2o",
    "tova",      "knorm",   "expected",  "kvzip",  "random", "drop"};

template <std::size_t... I>
Method make_method(std::size_t index, std::index_sequence<I...>) {
  Method method;
  ((index == I ? void(method.emplace<I>()) : void()), ...);
  return method;
}

Result<Method> method_of(std::string_view name) {
  std::string known;
  for (std::size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] == name) return make_method(i, std::make_index_sequence<kNames.size()>{});
    known.append(known.empty() ? "" : ", ").append(kNames[i]);
  }
  return fail(ErrorCode::kInvalid, "prune by '" + std::string(name) + "'", "no such method",
              "take one of " + known);
}

using Words = std::map<std::string, std::string, std::less<>>;

Result<Words> split(std::string_view text) {
  Words words;
  while (true) {
    const std::size_t begin = text.find_first_not_of(" \t");
    if (begin == std::string_view::npos) return words;
    text.remove_prefix(begin);
    const std::string_view word = text.substr(0, text.find_first_of(" \t"));
    text.remove_prefix(word.size());
    const std::size_t equals = word.find('=');
    if (equals == 0 || equals == std::string_view::npos) {
      return fail(ErrorCode::kInvalid, "'" + std::string(word) + "'",
                  "parameters are written name=value");
    }
    if (!words.emplace(word.substr(0, equals), word.substr(equals + 1)).second) {
      return fail(ErrorCode::kInvalid, "'" + std::string(word) + "'", "it is named twice");
    }
  }
}

}  // namespace

std::string_view name_of(const Method& method) { return kNames[method.index()]; }

Result<Policy> parse_policy(std::string_view words) {
  const std::size_t begin = words.find_first_not_of(" \t");
  words.remove_prefix(std::min(begin, words.size()));
  const std::string_view name = words.substr(0, words.find_first_of(" \t"));
  KVFS_ASSIGN(Method method, method_of(name));
  KVFS_ASSIGN(Words given, split(words.substr(name.size())));
  Policy policy{.method = std::move(method)};
  if (auto positions = given.extract("positions")) {
    policy.compact = positions.mapped() == "compact";
    if (!policy.compact && positions.mapped() != "keep") {
      return fail(ErrorCode::kInvalid, "positions=" + positions.mapped(),
                  "keep or compact is wanted");
    }
  }
  Status status;
  std::string known = "positions";
  std::visit(
      [&](auto& rule) {
        visit_parameters(rule, [&](std::string_view parameter, auto& value, int least) {
          known.append(", ").append(parameter);
          const auto word = given.extract(std::string(parameter));
          if (!word || !status) return;
          if (const Status done = read(word.mapped(), least, value); !done) {
            status =
                fail(ErrorCode::kInvalid,
                     std::string(name) + " " + word.key() + "=" + word.mapped(), done.error().why);
          }
        });
        if (status && given.empty()) status = check(rule);
      },
      policy.method);
  KVFS_TRY(status);
  if (!given.empty()) {
    return fail(ErrorCode::kInvalid, std::string(name) + " " + given.begin()->first,
                "it has no such parameter", "take one of " + known);
  }
  return policy;
}

std::string to_words(const Policy& policy) {
  std::string words(name_of(policy.method));
  std::visit(
      [&](auto rule) {
        visit_parameters(rule, [&](std::string_view parameter, const auto& value, int) {
          words.append(" ").append(parameter).append("=").append(write(value));
        });
      },
      policy.method);
  return policy.compact ? words + " positions=compact" : words;
}

Needs needs_of(const Method& method) {
  struct Ask {
    Needs operator()(const Pyramid&) const { return Needs::kNewestQuery; }
    Needs operator()(const Tova&) const { return Needs::kNewestQuery; }
    Needs operator()(const ByWindow&) const { return Needs::kWindowQueries; }
    Needs operator()(const H2o&) const { return Needs::kAllQueries; }
    Needs operator()(const Knorm&) const { return Needs::kKeyNorms; }
    Needs operator()(const Expected&) const { return Needs::kExpectedQueries; }
    Needs operator()(const KvZip&) const { return Needs::kReconstruction; }
    Needs operator()(const Random&) const { return Needs::kNothing; }
    Needs operator()(const KeepLast&) const { return Needs::kNothing; }
    Needs operator()(const Drop&) const { return Needs::kNothing; }
  };
  return std::visit(Ask{}, method);
}

bool reads_the_text(const Method& method) {
  const Needs needs = needs_of(method);
  return needs == Needs::kAllQueries || needs == Needs::kExpectedQueries ||
         needs == Needs::kReconstruction;
}

int window_of(const Method& method) {
  struct Ask {
    int operator()(const Pyramid&) const { return 1; }
    int operator()(const Tova&) const { return 1; }
    int operator()(const ByWindow& rule) const { return rule.window; }
    int operator()(const ByAmount&) const { return 0; }
    int operator()(const KeepLast&) const { return 0; }
    int operator()(const Drop&) const { return 0; }
  };
  return std::visit(Ask{}, method);
}

}  // namespace kvfs::prune
