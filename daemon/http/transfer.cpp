#include "daemon/http/transfer.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>

namespace kvfs::daemon::http {
namespace {

tl::unexpected<Error> disk_error(int number) {
  const bool full = number == ENOSPC || number == EDQUOT;
  return fail(full ? ErrorCode::kNoSpace : ErrorCode::kIo, "keeping what is sent",
              std::strerror(number), "make room on the store's disk");
}

}  // namespace

Result<std::shared_ptr<Upload>> Upload::begin(const std::filesystem::path& directory) {
  std::string path = (directory / "incoming-XXXXXX").string();
  const int fd = ::mkostemp(path.data(), O_CLOEXEC);
  if (fd < 0) return disk_error(errno);
  ::unlink(path.c_str());
  return std::shared_ptr<Upload>(new Upload(fd));
}

Upload::~Upload() { ::close(fd_); }

Status Upload::append(ByteSpan bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return disk_error(errno);
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
  return {};
}

std::filesystem::path Upload::path() const { return "/proc/self/fd/" + std::to_string(fd_); }

}  // namespace kvfs::daemon::http
