// kvfs set STATE k=v…: parameters that hold for the state's next jobs.
#include "cli/arguments.h"
#include "cli/verbs/verbs.h"

namespace kvfs::cli {
namespace {

class Set : public Verb {
 public:
  void options(Options& options) override {
    options.required("STATE", state_, "the state");
    options.required("NAME=VALUE", pairs_, "parameters; an empty value restores the default");
  }

  Result<int> run(const Client& client) override {
    KVFS_ASSIGN(const std::string state, state_path(client, state_));
    KVFS_ASSIGN(const boost::json::object params, parse_pairs(pairs_));
    KVFS_TRY(client.send("PATCH", state_target(state), {{"params", params}}));
    return 0;
  }

 private:
  std::string state_;
  std::vector<std::string> pairs_;
};

}  // namespace

std::unique_ptr<Verb> make_set() { return std::make_unique<Set>(); }

}  // namespace kvfs::cli
