#include "cli/kv_chart.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <string_view>

#include "cli/table.h"

namespace kvfs::cli {
namespace {

namespace json = boost::json;

constexpr std::array<std::string_view, 9> kEighths{" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
constexpr std::string_view kDropped = "░";

double number(const json::object& object, const char* key) {
  const json::value* value = object.if_contains(key);
  return value != nullptr && value->is_number() ? value->to_number<double>() : 0;
}

std::vector<double> numbers(const json::object& object, const char* key) {
  std::vector<double> out;
  const json::value* value = object.if_contains(key);
  if (value == nullptr || !value->is_array()) return out;
  for (const json::value& each : value->get_array())
    out.push_back(each.is_number() ? each.to_number<double>() : 0);
  return out;
}

std::string grouped(double count) {  // 12,345
  std::string digits = std::to_string(std::llround(count));
  for (auto at = static_cast<std::ptrdiff_t>(digits.size()) - 3; at > 0; at -= 3)
    digits.insert(static_cast<std::size_t>(at), ",");
  return digits;
}

// The mean of each of `bars` equal parts.
std::vector<double> merged(const std::vector<double>& of_layers, std::size_t bars) {
  std::vector<double> out;
  for (std::size_t bar = 0; bar < bars; ++bar) {
    const std::size_t begin = bar * of_layers.size() / bars;
    const std::size_t end = (bar + 1) * of_layers.size() / bars;
    double sum = 0;
    for (std::size_t i = begin; i < end; ++i) sum += of_layers[i];
    out.push_back(sum / static_cast<double>(end - begin));
  }
  return out;
}

// Of a bar in this row from the bottom: heights are in eighths of a row.
std::string_view cell(double kept, double before, int row) {
  const double bottom = 8.0 * row;
  const auto filled = static_cast<int>(std::clamp(std::ceil(kept - bottom), 0.0, 8.0));
  if (filled > 0) return kEighths[static_cast<std::size_t>(filled)];
  return before >= bottom + 4 ? kDropped : kEighths[0];
}

std::string heading(const json::object& refresh, const std::vector<double>& lengths,
                    const std::string& job) {
  const double read = number(refresh, "read");
  const double budget = number(refresh, "top_budget");
  std::string out = job.empty() ? "" : job + " ";
  out += "pruned at " + (read > 0 ? grouped(read) + " read" : grouped(number(refresh, "step")));
  out += ": " + human_bytes(number(refresh, "kv_bytes")) + " of KV";
  if (!lengths.empty()) {
    out +=
        ", the top layer holds " + grouped(lengths.back()) + ", its budget is " + grouped(budget);
  }
  return out;
}

// How wide a character stands on a terminal, near enough.
int columns_of(std::uint32_t character) {
  const bool wide = (character >= 0x1100 && character <= 0x115F) ||
                    (character >= 0x2E80 && character <= 0xA4CF) ||
                    (character >= 0xAC00 && character <= 0xD7A3) ||
                    (character >= 0xF900 && character <= 0xFAFF) ||
                    (character >= 0xFE30 && character <= 0xFE6F) ||
                    (character >= 0xFF00 && character <= 0xFF60) || character >= 0x1F300;
  return wide ? 2 : 1;
}

}  // namespace

std::string clipped(std::string_view text, int columns) {
  std::string out;
  while (!text.empty()) {
    const auto lead = static_cast<unsigned char>(text[0]);
    const std::size_t bytes = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    std::uint32_t character = lead < 0x80 ? lead : lead & (0x7FU >> bytes);
    for (std::size_t i = 1; i < bytes && i < text.size(); ++i)
      character = character << 6 | (static_cast<unsigned char>(text[i]) & 0x3FU);
    columns -= columns_of(character);
    if (columns < 0) break;
    const bool control = character < 0x20 || (character >= 0x7F && character < 0xA0);
    out += control ? std::string_view(" ") : text.substr(0, bytes);
    text.remove_prefix(std::min(bytes, text.size()));
  }
  return out;
}

std::vector<std::string> kv_chart(const json::object& refresh, ChartSize size,
                                  const std::string& job) {
  const std::vector<double> lengths = numbers(refresh, "lengths");
  std::vector<double> before = numbers(refresh, "before");
  before.resize(lengths.size(), 0);
  double most = 1;
  for (std::size_t i = 0; i < lengths.size(); ++i) most = std::max({most, lengths[i], before[i]});

  const std::string top = grouped(most);
  const auto margin = std::max<std::size_t>(top.size() + 1, 6);
  const auto room = static_cast<std::size_t>(
      std::max<std::ptrdiff_t>(size.columns - static_cast<std::ptrdiff_t>(margin) - 2, 1));
  const std::size_t bars = std::min(lengths.size(), room);
  const std::size_t gap = 2 * bars <= room ? 1 : 0;
  const std::size_t thick = bars > 0 && 3 * bars <= room ? 2 : 1;
  const std::vector<double> kept = merged(lengths, bars), had = merged(before, bars);

  std::vector<std::string> lines{clipped(heading(refresh, lengths, job), size.columns)};
  const double eighth = 8.0 * size.bar_rows / most;
  for (int row = size.bar_rows - 1; row >= 0; --row) {
    const bool first = row == size.bar_rows - 1;
    std::string line(margin - (first ? top.size() : 0), ' ');
    line += first ? top + "┤" : "│";
    for (std::size_t bar = 0; bar < bars; ++bar) {
      const std::string_view of_bar = cell(kept[bar] * eighth, had[bar] * eighth, row);
      for (std::size_t i = 0; i < thick; ++i) line += of_bar;
      if (gap > 0) line += ' ';
    }
    lines.push_back(std::move(line));
  }
  const std::string last = lengths.empty() ? "" : std::to_string(lengths.size() - 1);
  const std::size_t wide = bars * (thick + gap);
  std::string axis = "layer" + std::string(margin + 1 - 5, ' ') + "0";
  const std::size_t end = margin + 1 + wide - gap;
  if (axis.size() + 1 + last.size() <= end)
    axis += std::string(end - axis.size() - last.size(), ' ') + last;
  lines.push_back(clipped(axis, size.columns));
  const json::value* text = refresh.if_contains("text");
  const std::string latest =
      text != nullptr && text->is_string() ? std::string(text->get_string()) : std::string();
  lines.push_back(clipped("…" + latest, size.columns));
  return lines;
}

}  // namespace kvfs::cli
