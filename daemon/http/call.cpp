#include "daemon/http/call.h"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include "daemon/http/errors.h"

namespace kvfs::daemon::http {

namespace json = boost::json;

Result<json::object> Call::json() const {
  if (body.empty()) return json::object{};
  json::parse_options options;
  options.allow_invalid_utf8 = true;
  boost::system::error_code error;
  json::value value = json::parse(body, error, {}, options);
  if (error) {
    return fail(ErrorCode::kInvalid, "request body", "not JSON: " + error.message(),
                "send one JSON object");
  }
  if (!value.is_object()) {
    return fail(ErrorCode::kInvalid, "request body", "not a JSON object", "send one JSON object");
  }
  return std::move(value.as_object());
}

bool Call::asks(const std::string& name) const {
  const auto found = query.find(name);
  return found != query.end() &&
         (found->second.empty() || found->second == "1" || found->second == "true");
}

Answer json_answer(const json::object& object, unsigned status) {
  return {.status = status, .body = json::serialize(object) + "\n"};
}

Answer error_answer(const Error& error) {
  return json_answer(error_json(error), status_of(error.code));
}

}  // namespace kvfs::daemon::http
