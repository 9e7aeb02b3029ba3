#include "codec/container/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

namespace kvfs::container {
namespace {

// Closes on every way out.
struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

std::string reason_of(int error) { return std::generic_category().message(error); }

}  // namespace

Result<MappedFile> MappedFile::open(const std::filesystem::path& path, const std::string& what) {
  // Not blocking: a FIFO would hold open() until someone writes.
  const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (file.fd < 0) {
    const int error = errno;
    if (error == ENOENT || error == ENOTDIR) {
      return fail(ErrorCode::kNotFound, what, "no such file", "check the path");
    }
    return fail(error == EACCES ? ErrorCode::kPermission : ErrorCode::kIo, what, reason_of(error));
  }
  struct stat facts {};
  if (::fstat(file.fd, &facts) != 0) return fail(ErrorCode::kIo, what, reason_of(errno));
  if (!S_ISREG(facts.st_mode)) {
    return fail(ErrorCode::kInvalid, what, "not a regular file", "name a model's file");
  }
  if (facts.st_size == 0) {
    return fail(ErrorCode::kCorrupt, what, "header, magic or length: the file is empty",
                "get it again");
  }
  const auto size = static_cast<std::size_t>(facts.st_size);
  void* start = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.fd, 0);
  if (start == MAP_FAILED) {
    return fail(ErrorCode::kIo, what, "mapping it: " + reason_of(errno));
  }
  return MappedFile(ByteSpan(static_cast<const std::uint8_t*>(start), size));
}

MappedFile::MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(bytes_, other.bytes_);
  return *this;
}

void MappedFile::release_pages() const {
  // A wish: what it saves is memory alone.
  if (!bytes_.empty())
    ::madvise(const_cast<std::uint8_t*>(bytes_.data()), bytes_.size(), MADV_DONTNEED);
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::uint8_t*>(bytes_.data()), bytes_.size());
}

}  // namespace kvfs::container
