// Which handler answers a request: a table of (method, pattern, handler).
//
// A pattern is a path whose segments are words or {captures}; a capture takes exactly one segment,
// percent-decoded. A state's path is ONE segment: "a/b" is asked for as /v1/states/a%2Fb, so that a
// state may be called "jobs" or "fork" without being taken for a verb. Pure functions.
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/http/call.h"

namespace kvfs::daemon::http {

struct Route {
  std::string_view method;  // "GET"
  std::string_view pattern;
  Handler handler = nullptr;
  bool takes_file = false;  // the body goes to a file, however large
};

struct Match {
  const Route* route = nullptr;  // null: none
  std::vector<std::string> captures;
  std::map<std::string, std::string> query;
  std::string allow;  // methods the path does have, when it has not this one
};

// target: as in the request line. kInvalid: percent signs that encode nothing.
Result<Match> find_route(std::span<const Route> routes, std::string_view method,
                         std::string_view target);

}  // namespace kvfs::daemon::http
