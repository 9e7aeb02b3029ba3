// kvfs step STATE [-n N]: the state goes on for N tokens without new text.
#include "cli/arguments.h"
#include "cli/job.h"
#include "cli/verbs/verbs.h"

namespace kvfs::cli {
namespace {

class Step : public Verb {
 public:
  void options(Options& options) override {
    options.required("STATE", state_, "the state");
    options.value("-n", tokens_, "tokens to generate");
    options.flag("--watch", watch_, "show what each refresh of the parameter prune leaves");
    options.flag("--json", json_, "the daemon's lines as they come");
    params_.add(options);
  }

  Result<int> run(const Client& client) override {
    JobRequest request{.verb = "step", .watch = watch_, .json = json_};
    KVFS_ASSIGN(request.state, state_path(client, state_));
    request.body["n"] = tokens_;
    request.body["params"] = params_.json();
    return run_job(client, std::move(request));
  }

 private:
  std::string state_;
  int tokens_ = 1;
  bool watch_ = false;
  bool json_ = false;
  ParamFlags params_;
};

}  // namespace

std::unique_ptr<Verb> make_step() { return std::make_unique<Step>(); }

}  // namespace kvfs::cli
