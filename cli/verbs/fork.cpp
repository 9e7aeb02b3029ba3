// kvfs fork SRC DST: a new state that starts with all that SRC knows; no tensor is copied.
#include "cli/arguments.h"
#include "cli/verbs/verbs.h"

namespace kvfs::cli {
namespace {

class Fork : public Verb {
 public:
  void options(Options& options) override {
    options.required("SRC", source_, "the state to start from");
    options.required("DST", target_, "the new state");
  }

  Result<int> run(const Client& client) override {
    KVFS_ASSIGN(const std::string source, state_path(client, source_));
    KVFS_ASSIGN(const std::string target, state_path(client, target_));
    KVFS_TRY(client.send("POST", state_target(source, "fork"), {{"to", target}}));
    return 0;
  }

 private:
  std::string source_;
  std::string target_;
};

}  // namespace

std::unique_ptr<Verb> make_fork() { return std::make_unique<Fork>(); }

}  // namespace kvfs::cli
