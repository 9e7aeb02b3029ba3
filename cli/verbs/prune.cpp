// kvfs prune STATE METHOD [k=v]…: the state keeps what the method chooses of its KV.
#include <vector>

#include "cli/arguments.h"
#include "cli/job.h"
#include "cli/verbs/verbs.h"

namespace kvfs::cli {
namespace {

class Prune : public Verb {
 public:
  void options(Options& options) override {
    options.required("STATE", state_, "the state");
    options.values("METHOD", words_, "and its parameters: pyramid window=160 bottom=640 top=128");
    options.flag("--json", json_, "the daemon's lines as they come");
  }

  Result<int> run(const Client& client) override {
    JobRequest request{.verb = "prune", .json = json_};
    KVFS_ASSIGN(request.state, state_path(client, state_));
    std::string policy;
    for (const std::string& word : words_) policy += (policy.empty() ? "" : " ") + word;
    request.body["policy"] = policy;
    return run_job(client, std::move(request));
  }

 private:
  std::string state_;
  std::vector<std::string> words_;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Verb> make_prune() { return std::make_unique<Prune>(); }

}  // namespace kvfs::cli
