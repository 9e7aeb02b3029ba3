// kvfsd's exit codes, a promise to scripts and units: never renumber.
#pragma once

#include "codec/base/result.h"

namespace kvfs::daemon {

enum ExitCode : int {
  kExitOk = 0,
  kExitFailure = 1,
  kExitUsage = 2,
  kExitStore = 3,  // in use or damaged
  kExitModel = 4,
  kExitMount = 5,
};

// Why the daemon did not come up.
struct Failure {
  Error error;
  ExitCode code = kExitFailure;
};

}  // namespace kvfs::daemon
