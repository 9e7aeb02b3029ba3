#include "engine/sched/verbs.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <memory>

#include "engine/store/write_transaction.h"

namespace kvfs::sched {
namespace {

constexpr std::size_t kMaxNameBytes = 255;
constexpr std::array<std::string_view, 12> kReserved = {
    "state.json", "text", "tokens.npy", "kv",     "params", "feed",
    "continue",   "ask",  "replies",    "status", "ctl",    ".snap"};

std::int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

Status check_name(StateId parent, std::string_view name) {
  const std::string what = "state " + std::string(name.substr(0, kMaxNameBytes));
  if (name.empty() || name.size() > kMaxNameBytes || name == "." || name == ".." ||
      name.find('/') != std::string_view::npos || name.find('\0') != std::string_view::npos) {
    return fail(ErrorCode::kInvalid, what, "that is no name for a state",
                "use 1 to 255 bytes without a slash");
  }
  if (parent && is_reserved_name(name)) {
    return fail(ErrorCode::kExists, what, "every state has a file of that name",
                "choose another name");
  }
  return {};
}

Result<ParamMap> checked(const ParamMap& params) {
  ParamMap out;
  for (const auto& [name, value] : params) {
    KVFS_ASSIGN(auto kept, check_param(name, value));
    if (!kept.empty()) out.emplace(name, std::move(kept));
  }
  return out;
}

store::StateRecord new_record(StateId parent, std::string_view name, const Owner& owner) {
  store::StateRecord record;
  record.parent = parent;
  record.name = name;
  record.uid = owner.uid;
  record.gid = owner.gid;
  record.created_ns = record.changed_ns = record.advanced_ns = now_ns();
  return record;
}

// Makes the record's state inside the writer; origin: the state it is a fork of.
void create(store::Store& store, store::StateRecord record, StateId origin,
            std::function<void(Result<StateId>)> done) {
  const auto id = std::make_shared<StateId>();  // with the two callbacks
  store.write_async(
      [record = std::move(record), origin, id](store::WriteTransaction& tx) -> Status {
        auto made = record;
        if (origin) {
          KVFS_ASSIGN(const auto source, tx.state(origin));
          made.version = source.version;
          made.params.insert(source.params.begin(), source.params.end());
        }
        KVFS_ASSIGN(*id, tx.create_state(made));
        return {};
      },
      [id, done = std::move(done)](Status written) {
        done(written ? Result<StateId>(*id) : fail(written.error()));
      });
}

}  // namespace

bool is_reserved_name(std::string_view name) {
  return std::ranges::find(kReserved, name) != kReserved.end();
}

void create_state(store::Store& store, StateId parent, std::string_view name, const Owner& owner,
                  std::uint32_t mode, const ParamMap& params,
                  std::function<void(Result<StateId>)> done) {
  if (const auto fine = check_name(parent, name); !fine) return done(fail(fine.error()));
  auto kept = checked(params);
  if (!kept) return done(fail(kept.error()));
  auto record = new_record(parent, name, owner);
  record.mode = mode;
  record.params = *std::move(kept);
  create(store, std::move(record), parent, std::move(done));
}

void fork_state(store::Store& store, StateId source, StateId parent, std::string_view name,
                const Owner& owner, std::function<void(Result<StateId>)> done) {
  if (const auto fine = check_name(parent, name); !fine) return done(fail(fine.error()));
  create(store, new_record(parent, name, owner), source, std::move(done));
}

void remove_state(store::Store& store, Scheduler& scheduler, StateId state,
                  std::function<void(Status)> done) {
  const auto record = store.state(state);
  if (!record) return done(fail(record.error()));
  const auto children = store.list(state, "", 1);
  if (!children) return done(fail(children.error()));
  if (!children->empty()) {  // before its jobs are canceled; the transaction looks again
    return done(fail(ErrorCode::kNotEmpty, "state " + record->name,
                     "it has children, such as " + children->front().name, "remove these first"));
  }
  scheduler.forget(state, [&store, &scheduler, state, done = std::move(done)] {
    store.write_async([state](store::WriteTransaction& tx) { return tx.remove_state(state); },
                      [&scheduler, state, done](Status removed) {
                        scheduler.settle(state);
                        done(std::move(removed));
                      });
  });
}

void rename_state(store::Store& store, StateId state, StateId new_parent, std::string_view new_name,
                  std::function<void(Status)> done) {
  if (auto fine = check_name(new_parent, new_name); !fine) return done(std::move(fine));
  store.write_async(
      [state, new_parent, name = std::string(new_name)](store::WriteTransaction& tx) {
        return tx.rename_state(state, new_parent, name);
      },
      std::move(done));
}

void set_param(store::Store& store, StateId state, std::string_view name, std::string_view value,
               std::function<void(Status)> done) {
  auto kept = check_param(name, value);
  if (!kept) return done(fail(kept.error()));
  store.write_async(
      [state, name = std::string(name),
       kept = *std::move(kept)](store::WriteTransaction& tx) -> Status {
        KVFS_ASSIGN(auto record, tx.state(state));
        if (kept.empty()) {
          record.params.erase(name);
        } else {
          record.params[name] = kept;
        }
        record.changed_ns = now_ns();
        return tx.update_state(state, record);
      },
      std::move(done));
}

Result<StateId> resolve(store::Store& store, std::string_view path) {
  StateId at;
  std::string_view rest = path;
  while (!rest.empty()) {
    const auto part = rest.substr(0, rest.find('/'));
    rest.remove_prefix(std::min(rest.size(), part.size() + 1));
    if (part.empty()) continue;
    const auto entry = store.lookup(at, part);
    if (!entry && entry.error().code != ErrorCode::kNotFound) return fail(entry.error());
    if (!entry || entry->kind != store::NameEntry::Kind::kState) {
      return fail(
          ErrorCode::kNotFound, "state " + std::string(path),
          "there is no state " +
              std::string(path.substr(0, static_cast<std::size_t>(part.end() - path.begin()))),
          "create it, or look at what there is with kvfs ls");
    }
    at = entry->state;
  }
  if (!at) {
    return fail(ErrorCode::kInvalid, "state " + std::string(path), "the name is empty",
                "name a state");
  }
  return at;
}

Result<std::string> path_of(store::Store& store, StateId state) {
  std::string path;
  while (state) {
    KVFS_ASSIGN(const auto record, store.state(state));
    path = record.name + (path.empty() ? "" : "/" + path);
    state = record.parent;
  }
  return path;
}

}  // namespace kvfs::sched
