// kvfs cancel STATE JOB: ends a job; a continue keeps what it has generated.
#include "cli/arguments.h"
#include "cli/verbs/verbs.h"

namespace kvfs::cli {
namespace {

class Cancel : public Verb {
 public:
  void options(Options& options) override {
    options.required("STATE", state_, "the state");
    options.required("JOB", job_, "the job's name, as status has it");
  }

  Result<int> run(const Client& client) override {
    KVFS_ASSIGN(const std::string state, state_path(client, state_));
    KVFS_TRY(client.send("POST", state_target(state, "cancel"), {{"job", job_}}));
    return 0;
  }

 private:
  std::string state_;
  std::string job_;
};

}  // namespace

std::unique_ptr<Verb> make_cancel() { return std::make_unique<Cancel>(); }

}  // namespace kvfs::cli
