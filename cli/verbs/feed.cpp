// kvfs feed STATE [FILE|-]…: the state reads texts and says nothing.
#include "cli/arguments.h"
#include "cli/job.h"
#include "cli/verbs/verbs.h"

namespace kvfs::cli {
namespace {

class Feed : public Verb {
 public:
  void options(Options& options) override {
    options.required("STATE", state_, "the state");
    options.values("FILE", files_, "texts, read one after the other; - or none: standard input");
    options.flag("--watch", watch_, "show what each refresh of the parameter prune leaves");
    options.flag("--json", json_, "the daemon's lines as they come");
    params_.add(options);
  }

  Result<int> run(const Client& client) override {
    KVFS_ASSIGN(const std::string state, state_path(client, state_));
    if (files_.empty()) files_.emplace_back("-");
    for (const std::string& file : files_) {
      JobRequest request{.state = state, .verb = "feed", .watch = watch_, .json = json_};
      KVFS_ASSIGN(const std::string text, read_text(file));
      request.body["prompt"] = text;
      request.body["params"] = params_.json();
      KVFS_ASSIGN(const int code, run_job(client, std::move(request)));
      if (code != 0) return code;
    }
    return 0;
  }

 private:
  std::string state_;
  std::vector<std::string> files_;
  bool watch_ = false;
  bool json_ = false;
  ParamFlags params_;
};

}  // namespace

std::unique_ptr<Verb> make_feed() { return std::make_unique<Feed>(); }

}  // namespace kvfs::cli
