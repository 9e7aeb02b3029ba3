// From an inode number alone to its node: what an NFS handle of before a restart names.
#pragma once

#include "fs/context.h"
#include "fs/node.h"

namespace kvfs::fs {

// Null when that thing is gone, or its number says nothing about it.
NodePtr revive(Context& context, Ino ino);

}  // namespace kvfs::fs
