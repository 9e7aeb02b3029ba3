// The life of states: list, create, look at, change, fork, remove.
#include <boost/json/array.hpp>

#include "daemon/http/api.h"
#include "daemon/http/arguments.h"
#include "daemon/http/completion.h"
#include "daemon/http/present.h"
#include "daemon/http/tell_mount.h"
#include "engine/sched/verbs.h"

// g++ 12 inlines the freeing of a coroutine's frame here, but not its making, and takes the two for
// strangers.
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"

namespace kvfs::daemon::http {
namespace {

namespace json = boost::json;

constexpr std::size_t kListPage = 1000;  // entries read in one transaction

// Calls visit(id, name) for every state directly under parent.
template <class Visit>
Status each_child(store::Store& store, StateId parent, Visit visit) {
  std::string after;
  while (true) {
    KVFS_ASSIGN(const auto page, store.list(parent, after, kListPage));
    for (const store::NameEntry& entry : page) {
      if (entry.kind == store::NameEntry::Kind::kState) KVFS_TRY(visit(entry.state, entry.name));
    }
    if (page.size() < kListPage) return {};
    after = page.back().name;
  }
}

Status list_under(Services& services, StateId parent, const std::string& prefix, bool recursive,
                  json::array& out) {
  return each_child(services.store, parent, [&](StateId id, const std::string& name) -> Status {
    auto summary = state_summary(services, id, prefix + name);
    // Removed since the page was read: as if never listed.
    if (!summary && summary.error().code == ErrorCode::kNotFound) return {};
    if (!summary) return fail(std::move(summary).error());
    out.push_back(std::move(*summary));
    if (recursive) return list_under(services, id, prefix + name + "/", recursive, out);
    return {};
  });
}

// Children before parents.
Status collect_tree(store::Store& store, StateId root, std::vector<StateId>& out) {
  KVFS_TRY(each_child(
      store, root, [&](StateId id, const std::string&) { return collect_tree(store, id, out); }));
  out.push_back(root);
  return {};
}

// The store knows that a name is taken, not what its user can do.
tl::unexpected<Error> refuse_place(Error error) {
  if (error.code == ErrorCode::kExists && error.way_out.empty()) {
    error.way_out = "choose another name, or remove that state first";
  }
  return fail(std::move(error));
}

boost::asio::awaitable<Status> set_params(Services& services, StateId state,
                                          const sched::ParamMap& params) {
  for (const auto& [name, value] : params) {
    Status status = co_await completion<Status>(
        [&](auto done) { sched::set_param(services.store, state, name, value, std::move(done)); });
    if (!status) co_return status;
  }
  co_await tell_mount(services, state);
  co_return Status{};
}

Result<Answer> facts_answer(Services& services, StateId id, unsigned status) {
  KVFS_ASSIGN(const json::object facts, state_facts(services, id));
  return json_answer(facts, status);
}

}  // namespace

// Coroutines cannot use KVFS_TRY (it returns, they co_return), so each handler's checks stand in a
// plain function that does.
namespace {

struct Creation {
  Place place;
  sched::ParamMap params;
};
Result<Creation> read_creation(Services& services, const Call& call) {
  KVFS_ASSIGN(const json::object body, call.json());
  KVFS_TRY(only_fields(body, {"path", "params"}));
  KVFS_ASSIGN(const std::string path, text_field(body, "path"));
  KVFS_ASSIGN(Place place, place_of(services.store, path));
  KVFS_ASSIGN(sched::ParamMap params, params_field(body));
  KVFS_TRY(check_model(services.catalog, params));
  return Creation{std::move(place), std::move(params)};
}

struct Change {
  StateId state;
  std::optional<Place> rename;
  sched::ParamMap params;
  std::optional<bool> pinned;
};
Result<Change> read_change(Services& services, const Call& call) {
  Change change;
  KVFS_ASSIGN(change.state, sched::resolve(services.store, call.captures.at(0)));
  KVFS_ASSIGN(const json::object body, call.json());
  KVFS_TRY(only_fields(body, {"rename", "params", "pinned"}));
  if (body.contains("rename")) {
    KVFS_ASSIGN(const std::string path, text_field(body, "rename"));
    KVFS_ASSIGN(change.rename, place_of(services.store, path));
  }
  KVFS_ASSIGN(change.params, params_field(body));
  KVFS_TRY(check_model(services.catalog, change.params));
  if (body.contains("pinned")) {
    KVFS_ASSIGN(change.pinned, truth_field(body, "pinned", false));
  }
  return change;
}

struct Forking {
  StateId source;
  Place place;
};
Result<Forking> read_forking(Services& services, const Call& call) {
  KVFS_ASSIGN(const StateId source, sched::resolve(services.store, call.captures.at(0)));
  KVFS_ASSIGN(const json::object body, call.json());
  KVFS_TRY(only_fields(body, {"to"}));
  KVFS_ASSIGN(const std::string path, text_field(body, "to"));
  KVFS_ASSIGN(Place place, place_of(services.store, path));
  return Forking{source, std::move(place)};
}

Result<std::vector<StateId>> read_removal(Services& services, const Call& call) {
  KVFS_ASSIGN(const StateId state, sched::resolve(services.store, call.captures.at(0)));
  if (!call.asks("recursive")) return std::vector<StateId>{state};
  std::vector<StateId> states;
  KVFS_TRY(collect_tree(services.store, state, states));
  return states;
}

Result<Answer> read_list(Services& services, const Call& call) {
  StateId parent;
  std::string prefix;
  if (const auto under = call.query.find("under"); under != call.query.end()) {
    KVFS_ASSIGN(parent, sched::resolve(services.store, under->second));
    KVFS_ASSIGN(prefix, sched::path_of(services.store, parent));
    prefix += '/';
  }
  json::array states;
  KVFS_TRY(list_under(services, parent, prefix, call.asks("recursive"), states));
  return json_answer({{"states", std::move(states)}});
}

Result<Answer> read_facts(Services& services, const Call& call) {
  KVFS_ASSIGN(const StateId state, sched::resolve(services.store, call.captures.at(0)));
  return facts_answer(services, state, 200);
}

}  // namespace

Answering list_states(Services& services, Call call) { co_return read_list(services, call); }

Answering get_state(Services& services, Call call) { co_return read_facts(services, call); }

Answering post_state(Services& services, Call call) {
  const Result<Creation> creation = read_creation(services, call);
  if (!creation) co_return fail(creation.error());
  const sched::Owner owner{call.peer.uid, call.peer.gid};
  const Result<StateId> id = co_await completion<Result<StateId>>([&](auto done) {
    sched::create_state(services.store, creation->place.parent, creation->place.name, owner, 0700,
                        creation->params, std::move(done));
  });
  if (!id) co_return refuse_place(id.error());
  co_await tell_mount(services, *id);
  co_return facts_answer(services, *id, 201);
}

Answering delete_state(Services& services, Call call) {
  const Result<std::vector<StateId>> states = read_removal(services, call);
  if (!states) co_return fail(states.error());
  for (const StateId state : *states) {
    const Status removed = co_await completion<Status>([&](auto done) {
      sched::remove_state(services.store, services.scheduler, state, std::move(done));
    });
    if (!removed) co_return fail(removed.error());
    co_await tell_mount(services, state);
  }
  co_return json_answer({{"removed", states->size()}});
}

Answering patch_state(Services& services, Call call) {
  const Result<Change> change = read_change(services, call);
  if (!change) co_return fail(change.error());
  const Status set = co_await set_params(services, change->state, change->params);
  if (!set) co_return fail(set.error());
  if (change->pinned) {
    const Status pinned = co_await completion<Status>([&](auto done) {
      sched::set_pinned(services.store, change->state, *change->pinned, std::move(done));
    });
    if (!pinned) co_return fail(pinned.error());
  }
  if (change->rename) {
    const Status renamed = co_await completion<Status>([&](auto done) {
      sched::rename_state(services.store, change->state, change->rename->parent,
                          change->rename->name, std::move(done));
    });
    if (!renamed) co_return refuse_place(renamed.error());
    co_await tell_mount(services, change->state);
  }
  co_return facts_answer(services, change->state, 200);
}

Answering post_fork(Services& services, Call call) {
  const Result<Forking> forking = read_forking(services, call);
  if (!forking) co_return fail(forking.error());
  const sched::Owner owner{call.peer.uid, call.peer.gid};
  const Result<StateId> id = co_await completion<Result<StateId>>([&](auto done) {
    sched::fork_state(services.store, forking->source, forking->place.parent, forking->place.name,
                      owner, std::move(done));
  });
  if (!id) co_return refuse_place(id.error());
  co_await tell_mount(services, *id);
  co_return facts_answer(services, *id, 201);
}

}  // namespace kvfs::daemon::http
