// kvfs rollback STATE N_TOKENS|@SNAP: the state forgets what came after.
#include "cli/arguments.h"
#include "cli/verbs/verbs.h"

namespace kvfs::cli {
namespace {

class Rollback : public Verb {
 public:
  void options(Options& options) override {
    options.required("STATE", state_, "the state");
    options.required("TO", target_, "how many tokens it keeps, or @SNAPSHOT");
  }

  Result<int> run(const Client& client) override {
    KVFS_ASSIGN(const std::string state, state_path(client, state_));
    KVFS_TRY(client.send("POST", state_target(state, "rollback"), {{"to", target_}}));
    return 0;
  }

 private:
  std::string state_;
  std::string target_;
};

}  // namespace

std::unique_ptr<Verb> make_rollback() { return std::make_unique<Rollback>(); }

}  // namespace kvfs::cli
