#include "fs/mount_point.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>

#include "codec/base/log.h"

namespace kvfs::fs {
namespace {

namespace stdfs = std::filesystem;

// /proc/self/mountinfo writes space, tab, newline and backslash as \ooo.
std::string unescape(const std::string& text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size()) {
      out += static_cast<char>(std::stoi(text.substr(i + 1, 3), nullptr, 8));
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

// The type of the topmost file system mounted on exactly this directory.
std::optional<std::string> mounted_type(const stdfs::path& path) {
  std::ifstream mounts("/proc/self/mountinfo");
  std::optional<std::string> type;
  for (std::string line; std::getline(mounts, line);) {
    std::istringstream fields(line);
    std::string id, parent, device, root, where, word;
    fields >> id >> parent >> device >> root >> where;
    if (unescape(where) != path.string()) continue;
    while (fields >> word && word != "-") {
    }
    if (fields >> word) type = word;
  }
  return type;
}

// The path without links in its parents; the last part may be a mount that does not answer.
stdfs::path resolved(const stdfs::path& mount_point) {
  std::error_code error;
  const stdfs::path absolute = stdfs::absolute(mount_point, error).lexically_normal();
  const stdfs::path whole = stdfs::canonical(absolute, error);
  if (!error) return whole;
  const stdfs::path trimmed = absolute.has_filename() ? absolute : absolute.parent_path();
  const stdfs::path parent = stdfs::canonical(trimmed.parent_path(), error);
  return error ? trimmed : parent / trimmed.filename();
}

// Asked with statvfs, which no cache answers: the kernel may remember the root's attributes for
// long.
bool is_stale(const stdfs::path& path) {
  struct statvfs st {};
  return ::statvfs(path.c_str(), &st) != 0 && errno == ENOTCONN;
}

// What a user who may not call umount2 has.
bool fusermount(const stdfs::path& path) {
  const char* const arguments[] = {"fusermount3", "-u", "-z", "-q", "--", path.c_str(), nullptr};
  pid_t child = 0;
  if (::posix_spawnp(&child, arguments[0], nullptr, nullptr, const_cast<char* const*>(arguments),
                     environ) != 0) {
    return false;
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

Status check_device() {
  constexpr char kDevice[] = "/dev/fuse";
  const int fd = ::open(kDevice, O_RDWR | O_CLOEXEC);
  if (fd >= 0) {
    ::close(fd);
    return {};
  }
  const std::string why = std::strerror(errno);
  if (errno == EACCES || errno == EPERM) {
    return fail(ErrorCode::kPermission, std::string("opening ") + kDevice, why,
                "run as root or as a member of its group, or serve the socket alone: --no-mount");
  }
  return fail(ErrorCode::kUnsupported, std::string("opening ") + kDevice, why,
              "load the fuse module (modprobe fuse), give the container the device, or serve the "
              "socket alone: --no-mount");
}

Status check_directory(const stdfs::path& path) {
  const std::string what = "mount point " + path.string();
  struct stat st {};
  if (::stat(path.c_str(), &st) != 0) {
    if (errno == ENOENT) {
      return fail(ErrorCode::kNotFound, what, "it does not exist", "mkdir -p it first");
    }
    const auto code = errno == EACCES ? ErrorCode::kPermission : ErrorCode::kIo;
    return fail(code, what, std::strerror(errno), "choose another with --mount");
  }
  if (!S_ISDIR(st.st_mode)) {
    return fail(ErrorCode::kInvalid, what, "it is not a directory", "choose another with --mount");
  }
  if (const auto type = mounted_type(path)) {
    return fail(ErrorCode::kBusy, what, "something (" + *type + ") is mounted there already",
                "is another kvfsd running? stop it, umount it, or choose another with --mount");
  }
  std::error_code error;
  const bool empty = stdfs::is_empty(path, error);
  if (error) {
    return fail(ErrorCode::kPermission, what, error.message(), "choose another with --mount");
  }
  if (!empty) {
    return fail(ErrorCode::kNotEmpty, what, "it is not empty and its files would be hidden",
                "empty it, or choose another with --mount");
  }
  return {};
}

}  // namespace

bool detach_stale_mount(const stdfs::path& mount_point) {
  const stdfs::path path = resolved(mount_point);
  // Daemons that crashed one after the other leave a pile.
  for (int i = 0; i < 16 && is_stale(path); ++i) {
    KVFS_WARN("{}: detaching the mount of a kvfsd that is gone", path.string());
    if (::umount2(path.c_str(), MNT_DETACH) != 0 && !fusermount(path)) return false;
  }
  return !is_stale(path);
}

Result<stdfs::path> prepare_mount_point(const stdfs::path& mount_point) {
  if (mount_point.empty()) {
    return fail(ErrorCode::kInvalid, "mount point", "none is given", "give one with --mount");
  }
  const stdfs::path path = resolved(mount_point);
  if (!detach_stale_mount(path)) {
    return fail(ErrorCode::kBusy, "mount point " + path.string(),
                "the mount of a daemon that is gone cannot be detached",
                "umount -l it as its owner or as root");
  }
  KVFS_TRY(check_directory(path));
  KVFS_TRY(check_device());
  return path;
}

void set_read_ahead(const stdfs::path& mount_point) {
  constexpr char kKilobytes[] = "1024";
  struct stat st {};
  if (::stat(mount_point.c_str(), &st) != 0) return;
  std::ofstream bdi("/sys/class/bdi/" + std::to_string(major(st.st_dev)) + ":" +
                    std::to_string(minor(st.st_dev)) + "/read_ahead_kb");
  bdi << kKilobytes;
}

}  // namespace kvfs::fs
