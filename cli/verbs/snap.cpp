// kvfs snap STATE NAME: keeps what the state knows now; STATE@NAME names it. --drop lets it go.
#include "cli/arguments.h"
#include "cli/verbs/verbs.h"

namespace kvfs::cli {
namespace {

class Snap : public Verb {
 public:
  void options(Options& options) override {
    options.required("STATE", state_, "the state");
    options.required("NAME", name_, "the snapshot's name");
    options.flag("-d,--drop", drop_, "drop the snapshot of that name");
  }

  Result<int> run(const Client& client) override {
    KVFS_ASSIGN(const std::string state, state_path(client, state_));
    if (drop_) {
      KVFS_TRY(client.send("DELETE", state_target(state + "@" + name_), {}));
    } else {
      KVFS_TRY(client.send("POST", state_target(state, "snap"), {{"name", name_}}));
    }
    return 0;
  }

 private:
  std::string state_;
  std::string name_;
  bool drop_ = false;
};

}  // namespace

std::unique_ptr<Verb> make_snap() { return std::make_unique<Snap>(); }

}  // namespace kvfs::cli
