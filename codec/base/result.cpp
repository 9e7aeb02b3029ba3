#include "codec/base/result.h"

namespace kvfs {

std::string Error::message() const {
  std::string text = what + ": " + why;
  if (!way_out.empty()) text += "; " + way_out;
  return text;
}

const char* to_string(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalid: return "invalid";
    case ErrorCode::kNotFound: return "not found";
    case ErrorCode::kExists: return "exists";
    case ErrorCode::kNotEmpty: return "not empty";
    case ErrorCode::kBusy: return "busy";
    case ErrorCode::kAgain: return "again";
    case ErrorCode::kPermission: return "permission";
    case ErrorCode::kTooLarge: return "too large";
    case ErrorCode::kNoSpace: return "no space";
    case ErrorCode::kCorrupt: return "corrupt";
    case ErrorCode::kUnsupported: return "unsupported";
    case ErrorCode::kCanceled: return "canceled";
    case ErrorCode::kInterrupted: return "interrupted";
    case ErrorCode::kIo: return "io";
    case ErrorCode::kInternal: return "internal";
  }
  return "unknown";
}

}  // namespace kvfs
