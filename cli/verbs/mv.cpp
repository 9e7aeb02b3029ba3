// kvfs mv SRC DST: renames a state, or moves it below another.
#include "cli/arguments.h"
#include "cli/verbs/verbs.h"

namespace kvfs::cli {
namespace {

class Move : public Verb {
 public:
  void options(CLI::App& app) override {
    app.add_option("SRC", source_, "the state")->required();
    app.add_option("DST", target_, "its new path")->required();
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
