// Reads the whole store and says what is wrong with it, in sentences; changes nothing.
#pragma once

#include "engine/store/chunks.h"

namespace kvfs::store {

// Any thread; others may write meanwhile.
Result<VerifyReport> verify(Environment& environment, const ChunkTable& chunks);

}  // namespace kvfs::store
