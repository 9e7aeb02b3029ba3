#include "fs/nodes/text_handle.h"

#include <fcntl.h>

namespace kvfs::fs {

void TextHandle::read(std::uint64_t offset, std::size_t size, std::shared_ptr<ReadAnswer> answer) {
  answer->data(slice(text_, offset, size));
}

ByteSpan slice(std::string_view text, std::uint64_t offset, std::size_t size) {
  return offset < text.size() ? as_bytes(text.substr(offset, size)) : ByteSpan{};
}

Status refuse_writing(int flags) {
  if ((flags & O_ACCMODE) == O_RDONLY && (flags & O_TRUNC) == 0) return {};
  return fail(ErrorCode::kPermission, "opening for writing", "the daemon makes this file");
}

}  // namespace kvfs::fs
