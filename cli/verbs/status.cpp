// kvfs status: what the mount's `status` shows.
#include <cstdio>

#include <boost/json/serialize.hpp>

#include "cli/verbs/verbs.h"

namespace kvfs::cli {
namespace {

class ShowStatus : public Verb {
 public:
  void options(Options& options) override { options.flag("--json", json_, "as JSON"); }

  Result<int> run(const Client& client) override {
    if (json_) {
      KVFS_ASSIGN(const boost::json::object status, client.get("/v1/status"));
      std::printf("%s\n", boost::json::serialize(status).c_str());
      return 0;
    }
    KVFS_ASSIGN(const std::string text, client.text("/v1/status"));
    std::fputs(text.c_str(), stdout);
    return 0;
  }

 private:
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Verb> make_status() { return std::make_unique<ShowStatus>(); }

}  // namespace kvfs::cli
