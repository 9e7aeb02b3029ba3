// kvfs mount [DIR]: starts a daemon for this user; it returns when it answers, and so do we.
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "cli/verbs/verbs.h"

namespace kvfs::cli {
namespace {

// What is handed to kvfsd as it is.
constexpr const char* kValueFlags[]{"store",  "models",     "device",    "compute", "config",
                                    "listen", "token-file", "log-level", "threads", "kv-budget"};
constexpr const char* kSwitches[]{"no-mount", "share-prefixes"};

std::string daemon_program() {
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  const auto beside = self.parent_path() / "kvfsd";
  return std::filesystem::exists(beside, error) ? beside.string() : "kvfsd";
}

Result<int> run_and_wait(const std::vector<std::string>& arguments) {
  std::vector<char*> pointers;
  for (const std::string& argument : arguments) {
    pointers.push_back(const_cast<char*>(argument.c_str()));
  }
  pointers.push_back(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    ::execvp(pointers[0], pointers.data());
    std::fprintf(stderr, "kvfs: %s: %s; install it beside kvfs\n", pointers[0],
                 std::strerror(errno));
    ::_exit(127);
  }
  int status = 0;
  while (child > 0 && ::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (child < 0 || !WIFEXITED(status)) {
    return fail(ErrorCode::kIo, "kvfsd", "could not be run to its answer",
                "run kvfsd --foreground to see more");
  }
  return WEXITSTATUS(status);
}

class MountVerb : public Verb {
 public:
  void options(Options& options) override {
    options.value("DIR", directory_, "where; else the daemon's default");
    options.repeatable("--model", models_, "a model; repeatable, the first is the default");
    options.repeatable("-o,--fuse-options", fuse_options_, "options of the mount");
    for (const char* name : kValueFlags) {
      options.value(
          "--" + std::string(name),
          [this, name](const std::string& value) {
            passed_.push_back("--" + std::string(name));
            passed_.push_back(value);
          },
          "as kvfsd has it");
    }
    for (const char* name : kSwitches) {
      options.flag(
          "--" + std::string(name), [this, name] { passed_.push_back("--" + std::string(name)); },
          "as kvfsd has it");
    }
  }

  Result<int> run(const Client& client) override {
    if (client.answers()) {
      return fail(ErrorCode::kBusy, "mount", "a daemon answers at " + client.socket().string(),
                  "stop it with kvfs umount, or name another socket with --socket");
    }
    std::vector<std::string> arguments{daemon_program(), "--socket", client.socket().string()};
    if (!directory_.empty()) arguments.insert(arguments.end(), {"--mount", directory_});
    for (const std::string& model : models_) arguments.insert(arguments.end(), {"--model", model});
    for (const std::string& option : fuse_options_)
      arguments.insert(arguments.end(), {"-o", option});
    arguments.insert(arguments.end(), passed_.begin(), passed_.end());
    KVFS_ASSIGN(const int code, run_and_wait(arguments));
    if (code != 0) return code == 2 ? 2 : 1;  // it has said why
    KVFS_ASSIGN(const boost::json::object status, client.get("/v1/status"));
    const std::string mount(status.at("mount").as_string());
    std::printf("%s\n", mount.empty() ? client.socket().c_str() : mount.c_str());
    return 0;
  }

 private:
  std::string directory_;
  std::vector<std::string> models_;
  std::vector<std::string> fuse_options_;
  std::vector<std::string> passed_;
};

}  // namespace

std::unique_ptr<Verb> make_mount() { return std::make_unique<MountVerb>(); }

}  // namespace kvfs::cli
