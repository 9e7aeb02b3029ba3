#include "fs/errno.h"

#include <cerrno>

namespace kvfs::fs {

int errno_of(const Error& error) {
  switch (error.code) {
    case ErrorCode::kInvalid:
      return EINVAL;
    case ErrorCode::kNotFound:
      return ENOENT;
    case ErrorCode::kExists:
      return EEXIST;
    case ErrorCode::kNotEmpty:
      return ENOTEMPTY;
    case ErrorCode::kBusy:
      return EBUSY;
    case ErrorCode::kAgain:
      return EAGAIN;
    case ErrorCode::kPermission:
      return EPERM;
    case ErrorCode::kTooLarge:
      return EFBIG;
    case ErrorCode::kNoSpace:
      return ENOSPC;
    case ErrorCode::kUnsupported:
      return EOPNOTSUPP;
    case ErrorCode::kCanceled:
    case ErrorCode::kInterrupted:
      return ECANCELED;
    case ErrorCode::kCorrupt:
    case ErrorCode::kIo:
    case ErrorCode::kInternal:
      return EIO;
  }
  return EIO;
}

}  // namespace kvfs::fs
