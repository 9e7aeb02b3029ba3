// The daemon as a whole: health, status, models, shutdown.
#include <unistd.h>

#include <algorithm>

#include <boost/json/array.hpp>
#include <boost/json/parse.hpp>

#include "daemon/http/api.h"
#include "daemon/http/present.h"
#include "engine/sched/verbs.h"

namespace kvfs::daemon::http {

namespace json = boost::json;

Answering healthz(Services&, Call) {
  co_return Answer{.content_type = "text/plain", .body = "ok\n"};
}

Answering get_status(Services& services, Call call) {
  const std::string lines =
      sched::root_status(services.store, services.scheduler, services.catalog);
  const auto format = call.query.find("format");
  if (call.accept.starts_with("text/plain") ||
      (format != call.query.end() && format->second == "text")) {
    co_return Answer{.content_type = "text/plain; charset=utf-8", .body = lines};
  }
  json::object out = status_json(lines);
  out["pid"] = ::getpid();
  out["mount"] = services.mount_point;
  out["store"] = services.store_directory;
  co_return json_answer(out);
}

Answering get_events(Services& services, Call call) {
  std::string under;
  if (const auto given = call.query.find("under"); given != call.query.end()) {
    under = given->second;
    const auto found = sched::resolve(services.store, under);
    if (!found) co_return fail(found.error());
  }
  co_return Answer{.content_type = "application/x-ndjson",
                   .kind = Answer::Body::kEvents,
                   .body = std::move(under)};
}

Answering post_shutdown(Services& services, Call call) {
  if (!call.peer.local) {
    co_return fail(ErrorCode::kPermission, "shutdown", "not asked for on the unix socket",
                   "use kvfs umount on the daemon's machine");
  }
  services.shut_down();
  co_return json_answer({{"shutdown", true}}, 202);
}

Answering get_models(Services& services, Call) {
  json::array data;
  const auto loaded = services.scheduler.loaded_models();
  for (const std::string& name : services.catalog.names()) {
    json::object model{{"id", name},
                       {"object", "model"},
                       {"owned_by", "kvfs"},
                       {"default", name == services.catalog.default_name()},
                       {"loaded", std::find(loaded.begin(), loaded.end(), name) != loaded.end()}};
    // One damaged file must not hide the others.
    if (const auto info = services.catalog.info_json(name)) {
      boost::system::error_code error;
      json::value value = json::parse(*info, error);
      if (!error) model["info"] = std::move(value);
    } else {
      model["error"] = info.error().message();
    }
    data.push_back(std::move(model));
  }
  co_return json_answer({{"object", "list"}, {"data", std::move(data)}});
}

}  // namespace kvfs::daemon::http
