// kvfs continue STATE [PROMPT|-]: the prompt and its reply become part of the state.
#include "cli/arguments.h"
#include "cli/job.h"
#include "cli/verbs/verbs.h"

namespace kvfs::cli {
namespace {

class Continue : public Verb {
 public:
  void options(Options& options) override {
    options.required("STATE", state_, "the state");
    options.value("PROMPT", prompt_, "the prompt; - or none: standard input");
    options.flag("--watch", watch_, "show what each refresh of the parameter prune leaves");
    options.flag("--json", json_, "the daemon's lines as they come");
    params_.add(options);
  }

  Result<int> run(const Client& client) override {
    JobRequest request{.verb = "continue", .watch = watch_, .json = json_};
    KVFS_ASSIGN(request.state, state_path(client, state_));
    if (prompt_ == "-") {
      KVFS_ASSIGN(prompt_, read_text("-"));
    }
    request.body["prompt"] = prompt_;
    request.body["params"] = params_.json();
    return run_job(client, std::move(request));
  }

 private:
  std::string state_;
  std::string prompt_ = "-";
  bool watch_ = false;
  bool json_ = false;
  ParamFlags params_;
};

}  // namespace

std::unique_ptr<Verb> make_continue() { return std::make_unique<Continue>(); }

}  // namespace kvfs::cli
