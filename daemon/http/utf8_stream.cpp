#include "daemon/http/utf8_stream.h"

#include <utf8proc.h>

#include <algorithm>

namespace kvfs::daemon::http {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// Bytes of the character that starts with lead; 0 when none does.
std::size_t length_of(unsigned char lead) {
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return 2;
  if (lead >= 0xE0 && lead <= 0xEF) return 3;
  if (lead >= 0xF0 && lead <= 0xF4) return 4;
  return 0;
}

bool may_go_on(std::string_view start) {
  return length_of(static_cast<unsigned char>(start.front())) > start.size() &&
         std::all_of(start.begin() + 1, start.end(),
                     [](char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; });
}

}  // namespace

std::string Utf8Stream::add(std::string_view bytes) {
  held_ += bytes;
  std::string out;
  std::string_view rest = held_;
  while (!rest.empty()) {
    if (static_cast<unsigned char>(rest.front()) < 0x80) {
      out += rest.front();
      rest.remove_prefix(1);
      continue;
    }
    utf8proc_int32_t character = 0;
    const utf8proc_ssize_t used =
        utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(rest.data()),
                         static_cast<utf8proc_ssize_t>(rest.size()), &character);
    if (used > 0) {
      out += rest.substr(0, static_cast<std::size_t>(used));
      rest.remove_prefix(static_cast<std::size_t>(used));
    } else if (rest.size() < 4 && may_go_on(rest)) {
      break;
    } else {
      out += kReplacement;
      rest.remove_prefix(1);
    }
  }
  held_ = std::string(rest);
  return out;
}

std::string Utf8Stream::finish() {
  const bool cut = !held_.empty();
  held_.clear();
  return cut ? std::string(kReplacement) : std::string();
}

}  // namespace kvfs::daemon::http
