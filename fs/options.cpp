#include "fs/options.h"

#include <charconv>
#include <chrono>
#include <string_view>

namespace kvfs::fs {
namespace {

constexpr std::string_view kSpoolDelay = "spool_delay=";

// "1s", "250ms", or seconds.
Result<std::chrono::milliseconds> duration(std::string_view text) {
  double number = 0;
  const char* end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, number);
  const std::string_view unit(parsed.ptr, static_cast<std::size_t>(end - parsed.ptr));
  const bool known = unit.empty() || unit == "s" || unit == "ms";
  if (parsed.ec != std::errc{} || !known || !(number >= 0 && number <= 3600)) {
    return fail(ErrorCode::kInvalid, "mount option spool_delay",
                "\"" + std::string(text) + "\" is not a time", "give 1s or 250ms, at most an hour");
  }
  return std::chrono::milliseconds(static_cast<long>(unit == "ms" ? number : number * 1000));
}

}  // namespace

Result<ParsedOptions> parse_options(const std::vector<std::string>& options) {
  ParsedOptions out;
  out.fuse = {"fsname=kvfs", "subtype=kvfs", "default_permissions"};
  bool delay_given = false;
  for (std::string_view rest : options) {
    while (!rest.empty()) {
      const std::string_view word = rest.substr(0, rest.find(','));
      rest.remove_prefix(std::min(rest.size(), word.size() + 1));
      if (word == "snapdir") {
        out.behaviour.snapdir = true;
      } else if (word == "noblock") {
        out.behaviour.noblock = true;
      } else if (word.starts_with(kSpoolDelay)) {
        KVFS_ASSIGN(out.behaviour.spool_delay, duration(word.substr(kSpoolDelay.size())));
        delay_given = true;
      } else if (!word.empty() && word != "default_permissions") {
        out.fuse.emplace_back(word);
      }
    }
  }
  // Servers that re-export close and open again while a client still writes.
  if (out.behaviour.noblock && !delay_given) out.behaviour.spool_delay = std::chrono::seconds(1);
  return out;
}

}  // namespace kvfs::fs
