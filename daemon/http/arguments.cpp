#include "daemon/http/arguments.h"

#include <algorithm>

#include <boost/json/serialize.hpp>

#include "engine/sched/verbs.h"

namespace kvfs::daemon::http {
namespace {

namespace json = boost::json;

tl::unexpected<Error> bad_field(std::string_view name, const std::string& wanted) {
  return fail(ErrorCode::kInvalid, "field '" + std::string(name) + "'", "not " + wanted,
              "correct the request");
}

}  // namespace

Status only_fields(const json::object& body, std::initializer_list<std::string_view> known) {
  for (const auto& member : body) {
    const std::string_view name(member.key());
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      std::string list;
      for (const std::string_view field : known)
        list += (list.empty() ? "" : ", ") + std::string(field);
      return fail(ErrorCode::kInvalid, "field '" + std::string(name) + "'", "not known here",
                  "there are: " + list);
    }
  }
  return {};
}

Result<std::string> text_field(const json::object& body, std::string_view name,
                               std::string fallback) {
  const json::value* value = body.if_contains(name);
  if (value == nullptr || value->is_null()) return fallback;
  if (!value->is_string()) return bad_field(name, "a string");
  return std::string(value->get_string());
}

Result<std::int64_t> number_field(const json::object& body, std::string_view name,
                                  std::int64_t fallback, std::int64_t least, std::int64_t most) {
  const json::value* value = body.if_contains(name);
  if (value == nullptr || value->is_null()) return fallback;
  boost::system::error_code error;
  const auto number = value->to_number<std::int64_t>(error);
  if (error || number < least || number > most) {
    return bad_field(name,
                     "an integer from " + std::to_string(least) + " to " + std::to_string(most));
  }
  return number;
}

Result<bool> truth_field(const json::object& body, std::string_view name, bool fallback) {
  const json::value* value = body.if_contains(name);
  if (value == nullptr || value->is_null()) return fallback;
  if (!value->is_bool()) return bad_field(name, "true or false");
  return value->get_bool();
}

Result<std::vector<std::string>> texts_field(const json::object& body, std::string_view name) {
  std::vector<std::string> out;
  const json::value* value = body.if_contains(name);
  if (value == nullptr || value->is_null()) return out;
  if (!value->is_array()) return bad_field(name, "an array of strings");
  for (const json::value& each : value->get_array()) {
    if (!each.is_string()) return bad_field(name, "an array of strings");
    out.emplace_back(each.get_string());
  }
  return out;
}

Result<sched::ParamMap> params_field(const json::object& body) {
  sched::ParamMap params;
  const json::value* value = body.if_contains("params");
  if (value == nullptr || value->is_null()) return params;
  if (!value->is_object()) return bad_field("params", "an object");
  for (const auto& member : value->get_object()) {
    const std::string name(member.key());
    const json::value& given = member.value();
    const std::string text = given.is_string() ? std::string(given.get_string())
                             : given.is_null() ? std::string()
                                               : json::serialize(given);
    KVFS_ASSIGN(params[name], sched::check_param(name, text));
  }
  return params;
}

Status check_model(sched::Catalog& catalog, const sched::ParamMap& params) {
  const auto model = params.find("model");
  if (model != params.end()) KVFS_TRY(catalog.card(model->second));
  return {};
}

Result<Place> place_of(store::Store& store, std::string_view path) {
  while (path.starts_with('/')) path.remove_prefix(1);
  while (path.ends_with('/')) path.remove_suffix(1);
  if (path.empty()) {
    return fail(ErrorCode::kInvalid, "state's path", "empty", "name the state");
  }
  const std::size_t slash = path.rfind('/');
  if (slash == std::string_view::npos) return Place{StateId{}, std::string(path)};
  KVFS_ASSIGN(const StateId parent, sched::resolve(store, path.substr(0, slash)));
  return Place{parent, std::string(path.substr(slash + 1))};
}

}  // namespace kvfs::daemon::http
