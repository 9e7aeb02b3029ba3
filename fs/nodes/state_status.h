// A state's `status`: one line a job, newest first, and among them what was refused without a job.
#pragma once

#include "fs/context.h"
#include "fs/node.h"

namespace kvfs::fs {

NodePtr state_status(Context& context, StateId state);

}  // namespace kvfs::fs
