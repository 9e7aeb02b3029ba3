#include "engine/store/store_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

namespace kvfs::store {
namespace {

std::string holder_of(int fd) {
  char text[32] = {};
  const ssize_t n = pread(fd, text, sizeof text - 1, 0);
  const std::string pid(text, n > 0 ? static_cast<std::size_t>(n) : 0);
  return pid.substr(0, pid.find('\n'));
}

}  // namespace

Result<StoreLock> StoreLock::take(const std::filesystem::path& directory) {
  const std::string path = (directory / "kvfsd.lock").string();
  StoreLock lock(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (lock.fd_ < 0) {
    return fail(ErrorCode::kPermission, "open " + path, std::strerror(errno),
                "give the daemon's user write access to the store");
  }
  if (flock(lock.fd_, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return fail(ErrorCode::kIo, "lock " + path, std::strerror(errno));
    const std::string pid = holder_of(lock.fd_);
    return fail(ErrorCode::kBusy, "open the store " + directory.string(),
                "another daemon uses it" + (pid.empty() ? "" : ", process " + pid),
                "stop that one, or name another --store");
  }
  const std::string pid = std::to_string(getpid()) + "\n";
  if (ftruncate(lock.fd_, 0) != 0 || pwrite(lock.fd_, pid.data(), pid.size(), 0) < 0) {
    // The pid only makes a message better, and a full disk must not keep the store shut.
    if (errno != ENOSPC) return fail(ErrorCode::kIo, "write " + path, std::strerror(errno));
  }
  return lock;
}

StoreLock::StoreLock(StoreLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

StoreLock::~StoreLock() {
  if (fd_ >= 0) close(fd_);
}

}  // namespace kvfs::store
