// kvfs show STATE [--layers]: facts, parameters and jobs; with --layers each layer's length.
#include <cstdio>

#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>

#include "cli/arguments.h"
#include "cli/table.h"
#include "cli/verbs/verbs.h"

namespace kvfs::cli {
namespace {

namespace json = boost::json;

std::string plain(const json::value& value) {
  if (value.is_string()) return value.as_string().c_str();
  return value.is_null() ? "-" : json::serialize(value);
}

void add(Table& table, const json::object& object, const char* key) {
  if (const json::value* value = object.if_contains(key)) table.row({key, plain(*value)});
}

void add_layers(Table& table, const json::object& document) {
  const json::value* layers = document.if_contains("layers");
  if (layers == nullptr || !layers->is_array()) return;
  std::size_t index = 0;
  for (const json::value& layer : layers->as_array()) {
    const json::object& facts = layer.as_object();
    const json::value* length = facts.if_contains("length");
    if (length == nullptr) length = facts.if_contains("lengths");
    table.row({"layer " + std::to_string(index++), length != nullptr ? plain(*length) : "-"});
  }
}

class ShowState : public Verb {
 public:
  void options(Options& options) override {
    options.required("STATE", state_, "the state");
    options.flag("--layers", layers_, "each layer's length too");
    options.flag("--json", json_, "as JSON");
  }

  Result<int> run(const Client& client) override {
    KVFS_ASSIGN(const std::string state, state_path(client, state_));
    KVFS_ASSIGN(const json::object facts, client.get(state_target(state)));
    if (json_) {
      std::printf("%s\n", json::serialize(facts).c_str());
      return 0;
    }
    Table table;
    for (const char* key : {"path", "tokens"}) add(table, facts, key);
    const json::value* document = facts.if_contains("state");
    if (document != nullptr && document->is_object()) {
      for (const char* key :
           {"model", "fingerprint", "kernel_class", "next_pos", "dtype", "codec", "root"}) {
        add(table, document->get_object(), key);
      }
    }
    table.row({"kv", human_bytes(facts.at("kv_bytes").to_number<double>())});
    for (const char* key : {"origin", "created", "advanced"}) add(table, facts, key);
    for (const auto& param : facts.at("params").as_object()) {
      const std::string value = plain(param.value());
      if (!value.empty()) table.row({"params/" + std::string(param.key()), value});
    }
    if (layers_ && document != nullptr) add_layers(table, document->as_object());
    table.print();
    for (const json::value& job : facts.at("jobs").as_array()) {
      std::printf("%s\n", plain(job.as_object().at("line")).c_str());
    }
    return 0;
  }

 private:
  std::string state_;
  bool layers_ = false;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Verb> make_show() { return std::make_unique<ShowState>(); }

}  // namespace kvfs::cli
