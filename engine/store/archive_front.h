// What an archive begins with: magic number, format, bytes of its table, the table's digest. Part
// of archive.h.
#pragma once

#include <cstdint>
#include <string_view>

#include "codec/base/bytes.h"

namespace kvfs::store {

// A byte that no text has, line ends that a transfer as text would change.
inline constexpr std::string_view kArchiveMagic = "\x89kvfs\r\n\x1a";
inline constexpr std::uint32_t kArchiveFormat = 1;

Bytes archive_front(ByteSpan table);

}  // namespace kvfs::store
