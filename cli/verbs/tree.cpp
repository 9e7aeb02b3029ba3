// kvfs tree [STATE]: states below one another, as they were forked.
#include <algorithm>
#include <cstdio>

#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>
#include <boost/url/encode.hpp>
#include <boost/url/rfc/unreserved_chars.hpp>

#include "cli/arguments.h"
#include "cli/table.h"
#include "cli/verbs/verbs.h"

namespace kvfs::cli {
namespace {

namespace json = boost::json;

class Tree : public Verb {
 public:
  void options(Options& options) override {
    options.value("STATE", state_, "only what is below it");
    options.flag("--json", json_, "as JSON");
  }

  Result<int> run(const Client& client) override {
    std::string target = "/v1/states?recursive=1";
    if (!state_.empty()) {
      KVFS_ASSIGN(const std::string under, state_path(client, state_));
      target += "&under=" + boost::urls::encode(under, boost::urls::unreserved_chars);
    }
    KVFS_ASSIGN(const json::object answer, client.get(target));
    if (json_) {
      std::printf("%s\n", json::serialize(answer).c_str());
      return 0;
    }
    Table table;
    for (const json::value& value : answer.at("states").as_array()) {
      const json::object& state = value.as_object();
      const std::string path = state.at("path").as_string().c_str();
      const auto depth = static_cast<std::size_t>(std::ranges::count(path, '/'));
      const std::string name = path.substr(path.rfind('/') + 1);
      table.row({std::string(2 * depth, ' ') + name,
                 std::to_string(state.at("tokens").to_number<std::uint64_t>()) + " tokens"});
    }
    table.print();
    return 0;
  }

 private:
  std::string state_;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Verb> make_tree() { return std::make_unique<Tree>(); }

}  // namespace kvfs::cli
