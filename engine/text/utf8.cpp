#include "engine/text/utf8.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "engine/text/tokenizer.h"

namespace kvfs::text {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

struct Lead {
  std::size_t length;                    // 0: cannot start a sequence
  std::uint8_t low = 0x80, high = 0xBF;  // what the second byte may be
};

Lead lead_of(std::uint8_t byte) {
  if (byte < 0x80) return {1};
  if (byte < 0xC2) return {0};
  if (byte < 0xE0) return {2};
  if (byte == 0xE0) return {3, 0xA0};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte < 0xF0) return {3};
  if (byte == 0xF0) return {4, 0x90};
  if (byte < 0xF4) return {4};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {0};
}

}  // namespace

Utf8Front utf8_front(std::string_view text) {
  const Lead lead = lead_of(static_cast<std::uint8_t>(text[0]));
  if (lead.length == 0) return {1, false, false};
  for (std::size_t i = 1; i < lead.length; ++i) {
    if (i == text.size()) return {i, false, true};
    const auto byte = static_cast<std::uint8_t>(text[i]);
    const bool right = i == 1 ? byte >= lead.low && byte <= lead.high : (byte & 0xC0) == 0x80;
    if (!right) return {i, false, false};
  }
  return {lead.length, true, false};
}

std::size_t valid_utf8_prefix(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    std::uint64_t word = 0;
    if (text.size() - at >= sizeof word) {  // most text is ASCII: eight bytes at a time
      std::memcpy(&word, text.data() + at, sizeof word);
      if ((word & 0x8080808080808080U) == 0) {
        at += sizeof word;
        continue;
      }
    }
    const Utf8Front front = utf8_front(text.substr(at));
    if (!front.valid) return at;
    at += front.length;
  }
  return at;
}

bool is_valid_utf8(std::string_view text) { return valid_utf8_prefix(text) == text.size(); }

std::string Utf8Stream::push(std::string_view bytes) {
  pending_ += bytes;
  std::string shown;
  std::string_view rest = pending_;
  while (!rest.empty()) {
    const std::size_t valid = valid_utf8_prefix(rest);
    shown += rest.substr(0, valid);
    rest.remove_prefix(valid);
    if (rest.empty()) break;
    const Utf8Front front = utf8_front(rest);
    if (front.incomplete) break;
    shown += kReplacement;
    rest.remove_prefix(front.length);
  }
  pending_ = std::string(rest);
  return shown;
}

std::string Utf8Stream::finish() {
  const bool cut = !pending_.empty();  // never more than the start of one sequence
  pending_.clear();
  return std::string(cut ? kReplacement : std::string_view{});
}

}  // namespace kvfs::text
