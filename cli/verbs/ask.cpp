// kvfs ask STATE [PROMPT|-]: answered on a throw-away fork; the state stays as it was.
#include "cli/arguments.h"
#include "cli/job.h"
#include "cli/verbs/verbs.h"

namespace kvfs::cli {
namespace {

class Ask : public Verb {
 public:
  void options(Options& options) override {
    options.required("STATE", state_, "the state");
    options.value("PROMPT", prompt_, "the prompt; - or none: standard input");
    options.value("-n", replies_, "so many replies, each with a seed of its own");
    options.flag("--watch", watch_, "show what each refresh of the parameter prune leaves");
    options.flag("--json", json_, "the daemon's lines as they come");
    params_.add(options);
  }

  Result<int> run(const Client& client) override {
    JobRequest request{.verb = "ask", .watch = watch_, .json = json_};
    if (replies_ != 1) request.body["n"] = replies_;
    request.several = replies_ > 1;
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
  int replies_ = 1;
  bool watch_ = false;
  bool json_ = false;
  ParamFlags params_;
};

}  // namespace

std::unique_ptr<Verb> make_ask() { return std::make_unique<Ask>(); }

}  // namespace kvfs::cli
