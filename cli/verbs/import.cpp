// kvfs import FILE [STATE]: a file becomes a state; without STATE it is called as the file is.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include <boost/json/serialize.hpp>
#include <boost/url/encode.hpp>
#include <boost/url/rfc/unreserved_chars.hpp>

#include "cli/arguments.h"
#include "cli/progress.h"
#include "cli/verbs/verbs.h"

namespace kvfs::cli {
namespace {

constexpr std::array<std::string_view, 6> kSuffixes = {".pkl.gz", ".pt",  ".safetensors",
                                                       ".pkl",    ".npz", ".kvfs"};

Result<std::string> stem_of(const std::filesystem::path& path) {
  const std::string name = path.filename().string();
  for (const std::string_view suffix : kSuffixes) {
    if (name.size() > suffix.size() && name.ends_with(suffix)) {
      return name.substr(0, name.size() - suffix.size());
    }
  }
  return fail(ErrorCode::kInvalid, "file " + path.string(),
              "its name ends in no suffix that is known",
              "import .kvfs, .pt, .safetensors, .pkl, .pkl.gz or .npz");
}

struct Descriptor {
  int fd = -1;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

class Import : public Verb {
 public:
  void options(Options& options) override {
    options.required("FILE", file_, "NAME.kvfs, .pt, .safetensors, .pkl, .pkl.gz or .npz");
    options.value("STATE", state_, "the state it becomes; else NAME");
    options.value("--model", model_, "the model that made it, where the file does not say");
    options.flag("--json", json_, "the state's facts as JSON");
  }

  Result<int> run(const Client& client) override {
    KVFS_ASSIGN(std::string state, stem_of(file_));
    if (!state_.empty()) {
      KVFS_ASSIGN(state, state_path(client, state_));
    }
    const Descriptor file{::open(file_.c_str(), O_RDONLY | O_CLOEXEC)};
    struct stat facts {};
    if (file.fd < 0 || ::fstat(file.fd, &facts) != 0) {
      return fail(ErrorCode::kNotFound, "file " + file_, std::strerror(errno), "correct the path");
    }
    if (!S_ISREG(facts.st_mode)) {
      return fail(ErrorCode::kInvalid, "file " + file_, "it is not a regular file", "name one");
    }
    std::string target = state_target(state, "import");
    if (!model_.empty()) {
      target += "?model=" + boost::urls::encode(model_, boost::urls::unreserved_chars);
    }
    Progress progress("import " + state);
    KVFS_ASSIGN(
        const boost::json::object made,
        client.upload(target, file.fd, static_cast<std::uint64_t>(facts.st_size),
                      [&](std::uint64_t done, std::uint64_t size) { progress.show(done, size); }));
    if (json_) std::printf("%s\n", boost::json::serialize(made).c_str());
    return 0;
  }

 private:
  std::string file_;
  std::string state_;
  std::string model_;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Verb> make_import() { return std::make_unique<Import>(); }

}  // namespace kvfs::cli
