// The one place where an ErrorCode becomes an errno. Pure; any thread.
#pragma once

#include "codec/base/result.h"

namespace kvfs::fs {

int errno_of(const Error& error);

}  // namespace kvfs::fs
