// Errors as HTTP has them: the one place that knows status codes of errors.
//
// A body is {"error":{"code":"not found","what":…,"why":…,"way_out":…}}. Pure functions.
#pragma once

#include <boost/json/object.hpp>

#include "codec/base/result.h"

namespace kvfs::daemon::http {

inline constexpr unsigned kUnauthorized = 401;
inline constexpr unsigned kMethodNotAllowed = 405;
inline constexpr unsigned kTooManyConnections = 503;

unsigned status_of(ErrorCode code);
boost::json::object error_json(const Error& error);  // with the key "error" around it

}  // namespace kvfs::daemon::http
