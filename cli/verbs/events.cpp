// kvfs events [STATE]: what happens, as JSON lines, until Ctrl-C or the daemon's end.
#include <cstdio>

#include <boost/json/serialize.hpp>
#include <boost/url/encode.hpp>
#include <boost/url/rfc/unreserved_chars.hpp>

#include "cli/arguments.h"
#include "cli/verbs/verbs.h"

namespace kvfs::cli {
namespace {

namespace json = boost::json;

class Events : public Verb {
 public:
  void options(Options& options) override {
    options.value("STATE", state_, "of it, what is below it and its snapshots alone");
    options.flag("--json", json_, "as JSON, which it is anyway");
  }

  Result<int> run(const Client& client) override {
    std::string target = "/v1/events";
    if (!state_.empty()) {
      KVFS_ASSIGN(const std::string state, state_path(client, state_));
      target += "?under=" + boost::urls::encode(state, boost::urls::unreserved_chars);
    }
    bool interrupted = false;
    const Status ended = client.stream(
        "GET", target, {},
        [](const json::object& line) {
          std::printf("%s\n", json::serialize(line).c_str());
          std::fflush(stdout);
        },
        [&] {
          interrupted = true;
          return false;
        });
    if (!ended && !interrupted) return fail(ended.error());
    return 0;
  }

 private:
  std::string state_;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Verb> make_events() { return std::make_unique<Events>(); }

}  // namespace kvfs::cli
