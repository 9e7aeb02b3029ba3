// Names out of files, fit for an error's one line. Any thread.
#pragma once

#include <string>
#include <string_view>

namespace kvfs::container {

// 'name', cut after 100 bytes, control characters shown as '?'.
inline std::string in_quotes(std::string_view name) {
  std::string out = "'";
  for (const char c : name.substr(0, 100)) {
    out += static_cast<unsigned char>(c) < 32 || c == 127 ? '?' : c;
  }
  return out + "'";
}

}  // namespace kvfs::container
