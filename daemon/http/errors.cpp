#include "daemon/http/errors.h"

namespace kvfs::daemon::http {

unsigned status_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalid:
      return 400;
    case ErrorCode::kPermission:
      return 403;
    case ErrorCode::kNotFound:
      return 404;
    case ErrorCode::kExists:
    case ErrorCode::kNotEmpty:
    case ErrorCode::kBusy:
    case ErrorCode::kCanceled:
      return 409;
    case ErrorCode::kTooLarge:
      return 413;
    case ErrorCode::kAgain:
    case ErrorCode::kInterrupted:
      return 503;
    case ErrorCode::kUnsupported:
      return 501;
    case ErrorCode::kNoSpace:
      return 507;
    case ErrorCode::kCorrupt:
    case ErrorCode::kIo:
    case ErrorCode::kInternal:
      return 500;
  }
  return 500;
}

boost::json::object error_json(const Error& error) {
  return {{"error",
           {{"code", to_string(error.code)},
            {"what", error.what},
            {"why", error.why},
            {"way_out", error.way_out}}}};
}

}  // namespace kvfs::daemon::http
