// kvfs export STATE FILE: the state as one file, whose suffix says which kind. A .pkl.gz is
// compressed here.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <optional>
#include <utility>

#include <boost/json/serialize.hpp>

#include "cli/arguments.h"
#include "cli/progress.h"
#include "cli/verbs/verbs.h"
#include "codec/container/gzip.h"

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

  Status open() {
    fd_ = ::open(part_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd_ < 0) return failed();
    return {};
  }
  Status write(ByteSpan bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return fail(ErrorCode::kIo, "writing the file", std::strerror(errno), "make room");
      bytes = bytes.subspan(static_cast<std::size_t>(n));
      written_ += static_cast<std::uint64_t>(n);
    }
    return {};
  }
  std::uint64_t written() const { return written_; }
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
  std::uint64_t written_ = 0;
};

// What a file's name asks for.
struct Form {
  std::string_view suffix;
  std::string_view as;
  bool gzipped = false;
};
constexpr std::array<Form, 6> kForms{{{".pt", "pt"},
                                      {".safetensors", "safetensors"},
                                      {".pkl", "pkl"},
                                      {".pkl.gz", "pkl", true},
                                      {".npz", "npz"},
                                      {".kvfs", "kvfs"}}};

class Export : public Verb {
 public:
  void options(Options& options) override {
    options.required("STATE", state_, "the state, or STATE@SNAPSHOT");
    options.required(
        "FILE", file_,
        "NAME.pt (for torch.load), .safetensors, .pkl, .pkl.gz, .npz or .kvfs (all of it)");
    options.flag("--files", files_, "into a .kvfs: the files kept beside the state");
    options.flag("--snapshots", snapshots_, "into a .kvfs: its snapshots");
    options.flag("--json", json_, "say what was written as JSON");
  }

  Result<int> run(const Client& client) override {
    const auto form = std::ranges::find_if(
        kForms, [&](const Form& each) { return file_.ends_with(each.suffix); });
    if (form == kForms.end()) {
      return fail(
          ErrorCode::kInvalid, "file " + file_,
          "states are not exported as '" + std::filesystem::path(file_).extension().string() + "'",
          "use .pt, .safetensors, .pkl, .pkl.gz, .npz or .kvfs");
    }
    KVFS_ASSIGN(const std::string state, state_path(client, state_));
    NewFile out(file_);
    KVFS_TRY(out.open());
    std::optional<container::GzipWriter> gzip;
    if (form->gzipped) gzip.emplace([&](ByteSpan bytes) { return out.write(bytes); });
    std::string target = state_target(state, "export") + "?as=" + std::string(form->as);
    if (files_) target += "&files";
    if (snapshots_) target += "&snapshots";
    {
      Progress progress("export " + state);
      KVFS_TRY(client.download(
          target, [&](ByteSpan part) { return gzip ? gzip->write(part) : out.write(part); },
          [&](std::uint64_t done, std::uint64_t size) { progress.show(done, size); }));
    }
    if (gzip) KVFS_TRY(gzip->finish());
    KVFS_TRY(out.keep());
    if (json_) {
      const boost::json::object said{{"state", state}, {"file", file_}, {"bytes", out.written()}};
      std::printf("%s\n", boost::json::serialize(said).c_str());
    }
    return 0;
  }

 private:
  std::string state_;
  std::string file_;
  bool files_ = false;
  bool snapshots_ = false;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Verb> make_export() { return std::make_unique<Export>(); }

}  // namespace kvfs::cli
