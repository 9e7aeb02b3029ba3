// Bytes that arrive in pieces as valid UTF-8: a character that is cut waits for its end, and what
// can be no character becomes U+FFFD.
#pragma once

#include <string>
#include <string_view>

namespace kvfs::daemon::http {

class Utf8Stream {
 public:
  std::string add(std::string_view bytes);
  std::string finish();  // what is left, which was cut for good

 private:
  std::string held_;  // the beginning of a character, at most 3 bytes
};

}  // namespace kvfs::daemon::http
