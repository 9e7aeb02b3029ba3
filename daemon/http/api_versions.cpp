// A state's older versions: snapshots, and the way back.
#include <algorithm>

#include <boost/json/array.hpp>

#include "daemon/http/api.h"
#include "daemon/http/arguments.h"
#include "daemon/http/completion.h"
#include "daemon/http/present.h"
#include "engine/sched/rollback.h"
#include "engine/sched/verbs.h"

namespace kvfs::daemon::http {
namespace {

namespace json = boost::json;

struct Naming {
  StateId state;
  std::string word;
};
// The state of the address and the one field of the body.
Result<Naming> read_naming(Services& services, const Call& call, std::string_view field) {
  KVFS_ASSIGN(const StateId state, sched::resolve(services.store, call.captures.at(0)));
  KVFS_ASSIGN(const json::object body, call.json());
  KVFS_TRY(only_fields(body, {field}));
  KVFS_ASSIGN(std::string word, text_field(body, field));
  return Naming{state, std::move(word)};
}

Result<Answer> facts(Services& services, StateId id, unsigned status) {
  KVFS_ASSIGN(const json::object found, state_facts(services, id));
  return json_answer(found, status);
}

Result<Answer> roll_back(Services& services, const Call& call) {
  KVFS_ASSIGN(const Naming naming, read_naming(services, call, "to"));
  KVFS_TRY(sched::rollback_word(services.store, services.scheduler, services.catalog, naming.state,
                                naming.word));
  return facts(services, naming.state, 200);
}

Result<json::object> version_json(Services& services, StateId id, const std::string& name) {
  KVFS_ASSIGN(json::object out, state_summary(services, id, name));
  out.erase("path");
  out["name"] = name;
  KVFS_ASSIGN(const store::StateRecord record, services.store.state(id));
  if (record.version) {
    KVFS_ASSIGN(const store::VersionRecord version, services.store.version(record.version));
    out["root"] = version.root.hex();
  }
  return out;
}

Result<Answer> read_log(Services& services, const Call& call) {
  KVFS_ASSIGN(const StateId state, sched::resolve(services.store, call.captures.at(0)));
  KVFS_ASSIGN(const auto snapshots, services.store.snapshots(state));
  std::vector<std::pair<std::int64_t, json::object>> older;
  for (const store::NameEntry& entry : snapshots) {
    KVFS_ASSIGN(const store::StateRecord record, services.store.state(entry.state));
    KVFS_ASSIGN(json::object version, version_json(services, entry.state, entry.name));
    older.emplace_back(record.created_ns, std::move(version));
  }
  std::ranges::stable_sort(older, std::ranges::greater{},
                           [](const auto& each) { return each.first; });
  KVFS_ASSIGN(json::object now, version_json(services, state, ""));
  json::array versions{std::move(now)};
  for (auto& [created, version] : older) versions.push_back(std::move(version));
  return json_answer({{"versions", std::move(versions)}});
}

}  // namespace

Answering post_snap(Services& services, Call call) {
  const Result<Naming> naming = read_naming(services, call, "name");
  if (!naming) co_return fail(naming.error());
  const Result<StateId> made = co_await completion<Result<StateId>>([&](auto done) {
    sched::take_snapshot(services.store, naming->state, naming->word, std::move(done));
  });
  if (!made) co_return fail(made.error());
  co_return facts(services, *made, 201);
}

Answering post_rollback(Services& services, Call call) { co_return roll_back(services, call); }

Answering get_log(Services& services, Call call) { co_return read_log(services, call); }

}  // namespace kvfs::daemon::http
