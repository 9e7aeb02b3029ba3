// gzip files, whole, in memory (zlib). Any thread. Errors: kCorrupt, kTooLarge.
#pragma once

#include "codec/base/bytes.h"
#include "codec/base/result.h"

namespace kvfs::container {

bool is_gzip(ByteSpan file);
// All members of the file, one after the other; what comes out may have most_bytes.
Result<Bytes> gunzip(ByteSpan file, std::uint64_t most_bytes);

}  // namespace kvfs::container
