// kvfs rm [-r] STATE…: removes states; -r takes their children along.
#include "cli/arguments.h"
#include "cli/verbs/verbs.h"

namespace kvfs::cli {
namespace {

class Remove : public Verb {
 public:
  void options(Options& options) override {
    options.required("STATE", states_, "the states");
    options.flag("-r,--recursive", recursive_, "their children too");
  }

  Result<int> run(const Client& client) override {
    for (const std::string& state : states_) {
      KVFS_ASSIGN(const std::string path, state_path(client, state));
      KVFS_TRY(client.send("DELETE", state_target(path) + (recursive_ ? "?recursive=1" : ""), {}));
    }
    return 0;
  }

 private:
  std::vector<std::string> states_;
  bool recursive_ = false;
};

}  // namespace

std::unique_ptr<Verb> make_rm() { return std::make_unique<Remove>(); }

}  // namespace kvfs::cli
