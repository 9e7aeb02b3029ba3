// kvfs export STATE FILE: the state as one file, whose suffix says which kind.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <utility>

#include <boost/json/serialize.hpp>

#include "cli/arguments.h"
#include "cli/progress.h"
#include "cli/verbs/verbs.h"

namespace kvfs::cli {
namespace {

// Removed unless it is kept: an export that was interrupted leaves nothing.
class NewFile {
 public:
  explicit NewFile(const std::filesystem::path& path)
      : path_(path), part_(path.string() + "." + std::to_string(::getpid()) + ".part") {}
  ~NewFile() {
    if (fd_ < 0) return;
    ::close(fd_);
    ::unlink(part_.c_str());
  }
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  Result<int> open() {
    fd_ = ::open(part_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd_ < 0) return failed();
    return fd_;
  }
  Status keep() {
    if (::close(std::exchange(fd_, -1)) != 0 || ::rename(part_.c_str(), path_.c_str()) != 0) {
      const auto error = failed();
      ::unlink(part_.c_str());
      return error;
    }
    return {};
  }

 private:
  tl::unexpected<Error> failed() const {
    return fail(ErrorCode::kIo, "file " + path_.string(), std::strerror(errno),
                "name one in a directory that can be written");
  }
  const std::filesystem::path path_;
  const std::string part_;
  int fd_ = -1;
};

class Export : public Verb {
 public:
  void options(Options& options) override {
    options.required("STATE", state_, "the state, or STATE@SNAPSHOT");
    options.required("FILE", file_, "NAME.pt (for torch.load) or NAME.safetensors");
    options.flag("--json", json_, "say what was written as JSON");
  }

  Result<int> run(const Client& client) override {
    const std::filesystem::path path(file_);
    const std::string suffix = path.extension().string();
    if (suffix != ".pt" && suffix != ".safetensors") {
      return fail(ErrorCode::kInvalid, "file " + file_,
                  "states are not exported as '" + suffix + "'", "use .pt or .safetensors");
    }
    KVFS_ASSIGN(const std::string state, state_path(client, state_));
    NewFile out(path);
    KVFS_ASSIGN(const int fd, out.open());
    std::uint64_t bytes = 0;
    {
      Progress progress("export " + state);
      KVFS_TRY(client.download(state_target(state, "export") + "?as=" + suffix.substr(1), fd,
                               [&](std::uint64_t done, std::uint64_t size) {
                                 bytes = done;
                                 progress.show(done, size);
                               }));
    }
    KVFS_TRY(out.keep());
    if (json_) {
      const boost::json::object said{{"state", state}, {"file", file_}, {"bytes", bytes}};
      std::printf("%s\n", boost::json::serialize(said).c_str());
    }
    return 0;
  }

 private:
  std::string state_;
  std::string file_;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Verb> make_export() { return std::make_unique<Export>(); }

}  // namespace kvfs::cli
