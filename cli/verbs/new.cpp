// kvfs new STATE [--model M] [--param k=v]…: makes an empty state.
#include <cstdio>

#include <boost/json/serialize.hpp>

#include "cli/arguments.h"
#include "cli/verbs/verbs.h"

namespace kvfs::cli {
namespace {

class New : public Verb {
 public:
  void options(Options& options) override {
    options.required("STATE", state_, "the new state; its parent must exist");
    options.value("--model", model_, "the model it runs on; else the daemon's default");
    options.repeatable("--param", params_, "a parameter, as name=value; repeatable", "NAME=VALUE");
    options.flag("--json", json_, "print what was made as JSON");
  }

  Result<int> run(const Client& client) override {
    KVFS_ASSIGN(const std::string state, state_path(client, state_));
    KVFS_ASSIGN(boost::json::object params, parse_pairs(params_));
    if (!model_.empty()) params["model"] = model_;
    KVFS_ASSIGN(const boost::json::object made,
                client.send("POST", "/v1/states", {{"path", state}, {"params", params}}));
    if (json_) std::printf("%s\n", boost::json::serialize(made).c_str());
    return 0;
  }

 private:
  std::string state_;
  std::string model_;
  std::vector<std::string> params_;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Verb> make_new() { return std::make_unique<New>(); }

}  // namespace kvfs::cli
