// Fields of request bodies, checked: the error names the field.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <boost/json/object.hpp>

#include "codec/base/ids.h"
#include "codec/base/result.h"
#include "engine/sched/catalog.h"
#include "engine/sched/params.h"
#include "engine/store/store.h"

namespace kvfs::daemon::http {

// kInvalid: any key that is not among known.
Status only_fields(const boost::json::object& body, std::initializer_list<std::string_view> known);

// Missing fields are the fallback.
Result<std::string> text_field(const boost::json::object& body, std::string_view name,
                               std::string fallback = {});
Result<std::int64_t> number_field(const boost::json::object& body, std::string_view name,
                                  std::int64_t fallback, std::int64_t least, std::int64_t most);
Result<bool> truth_field(const boost::json::object& body, std::string_view name, bool fallback);
// An array of strings.
Result<std::vector<std::string>> texts_field(const boost::json::object& body,
                                             std::string_view name);
// "params": an object of strings, numbers, truth values or arrays; each value checked.
Result<sched::ParamMap> params_field(const boost::json::object& body);
// That the model they name, if any, is there.
Status check_model(sched::Catalog& catalog, const sched::ParamMap& params);

// "a/b/c" → the state a/b and the name c; the state itself need not exist.
struct Place {
  StateId parent;
  std::string name;
};
Result<Place> place_of(store::Store& store, std::string_view path);

}  // namespace kvfs::daemon::http
