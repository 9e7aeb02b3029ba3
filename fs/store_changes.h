// What the store says it changed, whoever changed it: the kernel stops believing what it keeps of
// it.
#pragma once

#include "engine/store/changes.h"
#include "fs/context.h"

namespace kvfs::fs {

// On the store's writer thread, before who asked for the change hears that it is made.
void heed(Context& context, const store::Change& change);

}  // namespace kvfs::fs
