// zstd frames without matches: one Huffman code a block of 128 KiB, and nothing else. Any thread.
//
// A thread keeps its zstd contexts, a few hundred KB of tables without meaning between calls:
// making them anew for every chunk costs a third of the decoding speed.
#pragma once

#include <optional>

#include "codec/base/bytes.h"

namespace kvfs::chunk {

std::size_t order0_bound(std::size_t size);

// Writes one frame to the front of `out` and returns its length; out.size() >= order0_bound().
// Nothing where zstd refuses (no memory).
std::optional<std::size_t> order0_encode(ByteSpan bytes, MutableByteSpan out);

// Fills `out` from any zstd frame that holds exactly out.size() bytes; kCorrupt otherwise.
Status order0_decode(ByteSpan frame, MutableByteSpan out);

}  // namespace kvfs::chunk
