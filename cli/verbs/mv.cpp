// kvfs mv SRC DST: renames a state, or moves it below another.
#include "cli/arguments.h"
#include "cli/verbs/verbs.h"

namespace kvfs::cli {
namespace {

class Move : public Verb {
 public:
  void options(Options& options) override {
    options.required("SRC", source_, "the state");
    options.required("DST", target_, "its new path");
  }

  Result<int> run(const Client& client) override {
    KVFS_ASSIGN(const std::string source, state_path(client, source_));
    KVFS_ASSIGN(const std::string target, state_path(client, target_));
    KVFS_TRY(client.send("PATCH", state_target(source), {{"rename", target}}));
    return 0;
  }

 private:
  std::string source_;
  std::string target_;
};

}  // namespace

std::unique_ptr<Verb> make_mv() { return std::make_unique<Move>(); }

}  // namespace kvfs::cli
