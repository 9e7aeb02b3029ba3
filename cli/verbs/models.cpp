// kvfs models: the models there are, the default first.
#include <cstdio>

#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>

#include "cli/table.h"
#include "cli/verbs/verbs.h"

namespace kvfs::cli {
namespace {

namespace json = boost::json;

class Models : public Verb {
 public:
  void options(Options& options) override { options.flag("--json", json_, "as JSON"); }

  Result<int> run(const Client& client) override {
    KVFS_ASSIGN(const json::object answer, client.get("/v1/models"));
    if (json_) {
      std::printf("%s\n", json::serialize(answer).c_str());
      return 0;
    }
    Table table;
    for (const json::value& value : answer.at("data").as_array()) {
      const json::object& model = value.as_object();
      std::string notes = model.at("default").as_bool() ? "default" : "";
      if (model.at("loaded").as_bool()) notes += notes.empty() ? "loaded" : ", loaded";
      if (const json::value* error = model.if_contains("error")) notes = error->as_string().c_str();
      table.row({model.at("id").as_string().c_str(), notes});
    }
    table.print();
    return 0;
  }

 private:
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Verb> make_models() { return std::make_unique<Models>(); }

}  // namespace kvfs::cli
