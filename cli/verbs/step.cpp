// kvfs step STATE [-n N]: the state goes on for N tokens without new text.
#include "cli/arguments.h"
#include "cli/job.h"
#include "cli/verbs/verbs.h"

namespace kvfs::cli {
namespace {

class Step : public Verb {
 public:
  void options(CLI::App& app) override {
    app.add_option("STATE", state_, "the state")->required();
    app.add_option("-n", tokens_, "tokens to generate")->capture_default_str();
    app.add_flag("--json", json_, "the daemon's lines as they come");
    params_.add(app);
  }

  Result<int> run(const Client& client) override {
    JobRequest request{.verb = "step", .json = json_};
    KVFS_ASSIGN(request.state, state_path(client, state_));
    request.body["n"] = tokens_;
    request.body["params"] = params_.json();
    return run_job(client, std::move(request));
  }

 private:
  std::string state_;
  int tokens_ = 1;
  bool json_ = false;
  ParamFlags params_;
};

}  // namespace

std::unique_ptr<Verb> make_step() { return std::make_unique<Step>(); }

}  // namespace kvfs::cli
