// kvfs log STATE: what it knows and what its snapshots do, newest first.
#include <cstdio>

#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>

#include "cli/arguments.h"
#include "cli/table.h"
#include "cli/verbs/verbs.h"

namespace kvfs::cli {
namespace {

namespace json = boost::json;

std::string word(const json::object& version, const char* key) {
  const json::value* value = version.if_contains(key);
  return value != nullptr && value->is_string() ? value->as_string().c_str() : "-";
}

class Log : public Verb {
 public:
  void options(Options& options) override {
    options.required("STATE", state_, "the state");
    options.flag("--json", json_, "as JSON");
  }

  Result<int> run(const Client& client) override {
    KVFS_ASSIGN(const std::string state, state_path(client, state_));
    KVFS_ASSIGN(const json::object answer, client.get(state_target(state, "log")));
    if (json_) {
      std::printf("%s\n", json::serialize(answer).c_str());
      return 0;
    }
    Table table;
    for (const json::value& value : answer.at("versions").as_array()) {
      const json::object& version = value.as_object();
      const std::string name = word(version, "name");
      table.row({name.empty() ? "now" : "@" + name,
                 std::to_string(version.at("tokens").to_number<std::uint64_t>()) + " tokens",
                 human_bytes(version.at("kv_bytes").to_number<double>()), word(version, "root"),
                 word(version, "advanced")});
    }
    table.print();
    return 0;
  }

 private:
  std::string state_;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Verb> make_log() { return std::make_unique<Log>(); }

}  // namespace kvfs::cli
