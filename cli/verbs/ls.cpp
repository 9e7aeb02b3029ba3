// kvfs ls [STATE] [-r]: the states below another, or all at the top.
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

std::string word(const json::object& state, const char* key) {
  const json::value* value = state.if_contains(key);
  return value != nullptr && value->is_string() ? value->as_string().c_str() : "-";
}

class List : public Verb {
 public:
  void options(Options& options) override {
    options.value("STATE", state_, "list what is below it");
    options.flag("-r,--recursive", recursive_, "all the way down");
    options.flag("--json", json_, "as JSON");
  }

  Result<int> run(const Client& client) override {
    std::string target = recursive_ ? "/v1/states?recursive=1" : "/v1/states?recursive=0";
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
      const auto tokens = state.at("tokens").to_number<std::uint64_t>();
      table.row({word(state, "path"), std::to_string(tokens) + " tokens",
                 human_bytes(state.at("kv_bytes").to_number<double>()), word(state, "model"),
                 word(state, "advanced")});
    }
    table.print();
    return 0;
  }

 private:
  std::string state_;
  bool recursive_ = false;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Verb> make_ls() { return std::make_unique<List>(); }

}  // namespace kvfs::cli
