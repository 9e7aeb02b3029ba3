// Sets up spdlog's default logger: stderr in the foreground (short lines where the journal adds the
// time), STORE/kvfsd.log behind. Before any other thread exists.
#pragma once

#include "codec/base/result.h"
#include "daemon/config.h"

namespace kvfs::daemon {

Status set_up_logging(const Config& config);

}  // namespace kvfs::daemon
