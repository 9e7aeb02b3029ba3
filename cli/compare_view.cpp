#include "cli/compare_view.h"

#include <algorithm>
#include <cstdio>

#include <boost/json/array.hpp>

#include "cli/client.h"
#include "cli/table.h"

namespace kvfs::cli {
namespace {

namespace json = boost::json;

double number(const json::object& object, const char* key) {
  const json::value* value = object.if_contains(key);
  return value != nullptr && value->is_number() ? value->to_number<double>() : 0;
}

std::string word(const json::object& object, const char* key) {
  const json::value* value = object.if_contains(key);
  return value != nullptr && value->is_string() ? std::string(value->get_string()) : std::string();
}

std::vector<double> numbers(const json::object& object, const char* key) {
  std::vector<double> out;
  if (const json::value* value = object.if_contains(key); value != nullptr && value->is_array()) {
    for (const json::value& each : value->get_array()) out.push_back(each.to_number<double>());
  }
  return out;
}

template <class... Values>
std::string text(const char* format, Values... values) {
  char out[160];
  std::snprintf(out, sizeof out, format, values...);
  return out;
}

std::string range(const json::object& object, const char* key) {
  const std::vector<double> values = numbers(object, key);
  if (values.empty()) return "-";
  return values.front() == values.back() ? text("%.0f", values.front())
                                         : text("%.0f … %.0f", values.front(), values.back());
}

// In one line, so that a column or a sentence holds it.
std::string quoted(const std::string& words) {
  if (words.empty()) return "its end";
  std::string out = "\"";
  for (const char c : words) {
    if (c == '\n') {
      out += "\\n";
    } else if (static_cast<unsigned char>(c) >= 0x20) {
      out += c;
    }
  }
  return out + '"';
}

std::string seconds(const json::object& result, const char* key) {
  return text("%.2f s", number(result.at("seconds").as_object(), key));
}

double all_seconds(const json::object& result) {
  const json::object& parts = result.at("seconds").as_object();
  return number(parts, "prune") + number(parts, "prefill") + number(parts, "generate");
}

std::string kl_text(double nats) {
  return nats == 0 ? "0" : text(nats < 0.001 ? "%.1e" : "%.3f", nats);
}

std::string parts_text(const json::object& result) {
  const json::value* differs = result.if_contains("differs");
  if (differs == nullptr) return "-";
  return text("token %.0f", number(differs->as_object(), "token"));
}

}  // namespace

std::string budgets_line(const json::object& result) {
  std::string out;
  if (result.contains("budgets")) out = "budgets " + range(result, "budgets");
  for (const char* name : {"window", "refresh", "start"}) {
    if (result.contains(name))
      out += std::string(", ") + name + text(" %.0f", number(result, name));
  }
  return out + (out.empty() ? "" : "; ") + "holds " + range(result, "lengths");
}

std::string CompareView::turn(const json::object& turn) {
  results_.clear();
  const std::string head = state_ +
                           text(": %.0f tokens, and %.0f of the prompt",
                                number(turn, "state_tokens"), number(turn, "prompt_tokens")) +
                           "; on " + word(turn, "model");
  if (turns_++ > 0) {
    turn_starts_.push_back(full_tokens_);
    return "\n" + head + "\n";
  }
  title_ = state_ + text(": %.0f tokens on ", number(turn, "state_tokens")) + word(turn, "model") +
           ", pruned " + word(turn, "prunes") + " the prompt is read";
  return head + "; pruned " + word(turn, "prunes") + " the prompt is read\n";
}

std::string CompareView::result(const json::object& result) {
  results_.push_back(result);
  const auto method = static_cast<std::size_t>(number(result, "method"));
  series_.resize(std::max(series_.size(), method + 1));
  PlotSeries& series = series_[method];
  series.name = word(result, "words");
  std::string out = "\n-- " + series.name + "\n";
  if (result.contains("error")) {
    const std::string why = error_of(result).message();
    series.facts = "refused";
    return out + "   refused: " + why + "\n";
  }
  const std::vector<double> kl = numbers(result, "kl");
  if (method == 0) full_tokens_ += kl.size();
  series.kl.insert(series.kl.end(), kl.begin(), kl.end());
  series.lengths = numbers(result, "lengths");
  series.facts = text("%.1f %% kept · KL %s · perplexity %.2f", 100 * number(result, "retention"),
                      kl_text(number(result, "mean_kl")).c_str(), number(result, "perplexity"));
  out += "   " + budgets_line(result) + "\n";
  out += word(result, "text") + (word(result, "text").ends_with('\n') ? "" : "\n");
  if (const json::value* value = result.if_contains("differs"); value != nullptr) {
    const json::object& differs = value->as_object();
    out += text("   parts from full at token %.0f: full goes on with ", number(differs, "token")) +
           quoted(word(differs, "full")) + ", it with " + quoted(word(differs, "own")) + "\n";
  } else if (method > 0) {
    out += "   the same tokens as full\n";
  }
  return out;
}

std::string CompareView::table() const {
  const auto label = [&](const json::object& result) {  // with its parameters where it needs them
    const auto name = [](const json::object& of) {
      const std::string words = word(of, "words");
      return words.substr(0, words.find(' '));
    };
    const auto alike = std::count_if(results_.begin(), results_.end(), [&](const auto& other) {
      return name(other) == name(result);
    });
    return alike > 1 ? word(result, "words") : name(result);
  };
  Table table;
  table.row({"method", "kept", "KV", "prune", "prefill", "answer", "in all", "tok/s", "KL, nats",
             "perplexity", "parts at"});
  for (const json::object& result : results_) {
    if (result.contains("error")) {
      table.row({label(result), "refused"});
      continue;
    }
    table.row({label(result), text("%.1f %%", 100 * number(result, "retention")),
               human_bytes(number(result, "kv_bytes")), seconds(result, "prune"),
               seconds(result, "prefill"), seconds(result, "generate"),
               text("%.2f s", all_seconds(result)),
               text("%.1f", number(result, "tokens_per_second")),
               kl_text(number(result, "mean_kl")), text("%.2f", number(result, "perplexity")),
               parts_text(result)});
  }
  return "\n" + table.text();
}

PlotData CompareView::plot() const {
  return {.title = title_, .series = series_, .turns = turn_starts_};
}

}  // namespace kvfs::cli
