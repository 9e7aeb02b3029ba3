#include "engine/sched/verbs.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <memory>

#include <fmt/format.h>

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

// Makes the record's state inside the writer; origin: the state it is a fork of. What is a name and
// nothing else is on disk soon.
void create(store::Store& store, store::StateRecord record, StateId origin,
            std::function<void(Result<StateId>)> done) {
  const auto id = std::make_shared<StateId>();  // with the two callbacks
  const bool bare = !origin && record.params.empty();
  auto body = [record = std::move(record), origin, id](store::WriteTransaction& tx) -> Status {
    auto made = record;
    if (origin) {
      KVFS_ASSIGN(const auto source, tx.state(origin));
      if (source.snapshot && made.parent == origin) {
        return fail(ErrorCode::kPermission, "state " + made.name,
                    "a snapshot is read-only, nothing can be made in it",
                    "fork it to another place");
      }
      made.version = source.version;
      made.params.insert(source.params.begin(), source.params.end());
    }
    KVFS_ASSIGN(*id, tx.create_state(made));
    return origin ? tx.copy_nodes(origin, *id) : Status();
  };
  auto made = [id, done = std::move(done)](const Status& written) {
    done(written ? Result<StateId>(*id) : fail(written.error()));
  };
  if (bare) return store.write_soon(std::move(body), std::move(made));
  store.write_async(std::move(body), std::move(made));
}

}  // namespace

Status check_state_name(StateId parent, std::string_view name) {
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

bool is_reserved_name(std::string_view name) {
  return std::ranges::find(kReserved, name) != kReserved.end();
}

void create_state(store::Store& store, StateId parent, std::string_view name, const Owner& owner,
                  std::uint32_t mode, const ParamMap& params,
                  std::function<void(Result<StateId>)> done) {
  if (const auto fine = check_state_name(parent, name); !fine) return done(fail(fine.error()));
  auto kept = checked(params);
  if (!kept) return done(fail(kept.error()));
  auto record = new_record(parent, name, owner);
  record.mode = mode;
  record.params = *std::move(kept);
  create(store, std::move(record), parent, std::move(done));
}

void fork_state(store::Store& store, StateId source, StateId parent, std::string_view name,
                const Owner& owner, std::function<void(Result<StateId>)> done) {
  if (const auto fine = check_state_name(parent, name); !fine) return done(fail(fine.error()));
  create(store, new_record(parent, name, owner), source, std::move(done));
}

void take_snapshot(store::Store& store, StateId state, std::string_view name,
                   std::function<void(Result<StateId>)> done) {
  if (const auto fine = check_state_name({}, name); !fine) return done(fail(fine.error()));
  const auto id = std::make_shared<StateId>();  // with the two callbacks
  store.write_async(
      [state, name = std::string(name), id](store::WriteTransaction& tx) -> Status {
        KVFS_ASSIGN(*id, tx.create_snapshot(state, name, now_ns()));
        return {};
      },
      [id, done = std::move(done)](Status written) {
        done(written ? Result<StateId>(*id) : fail(written.error()));
      });
}

void set_pinned(store::Store& store, StateId state, bool pinned, std::function<void(Status)> done) {
  store.write_async(
      [state, pinned](store::WriteTransaction& tx) -> Status {
        KVFS_ASSIGN(auto record, tx.state(state));
        record.pinned = pinned;
        return tx.update_state(state, record);
      },
      std::move(done));
}

void remove_state(store::Store& store, Scheduler& scheduler, StateId state,
                  std::function<void(Status)> done) {
  // Before its jobs are canceled; the transaction looks again.
  if (auto removable = store.removable(state); !removable) return done(std::move(removable));
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
  if (auto fine = check_state_name(new_parent, new_name); !fine) return done(std::move(fine));
  store.write_async(
      [state, new_parent, name = std::string(new_name)](store::WriteTransaction& tx) {
        return tx.rename_state(state, new_parent, name);
      },
      std::move(done));
}

void set_param(store::Store& store, StateId state, std::string_view name, std::string_view value,
               std::function<void(Status)> done, std::int64_t changed_ns, bool soon) {
  auto kept = check_param(name, value);
  if (!kept) return done(fail(kept.error()));
  auto body = [state, name = std::string(name), kept = *std::move(kept),
               changed_ns](store::WriteTransaction& tx) -> Status {
    KVFS_ASSIGN(auto record, tx.state(state));
    if (record.snapshot) {
      return fail(ErrorCode::kPermission, "parameter " + name, "a snapshot is read-only",
                  "fork it");
    }
    if (kept.empty()) {
      record.params.erase(name);
    } else {
      record.params[name] = kept;
    }
    record.changed_ns = changed_ns != 0 ? changed_ns : now_ns();
    return tx.update_state(state, record);
  };
  if (soon) return store.write_soon(std::move(body), std::move(done));
  store.write_async(std::move(body), std::move(done));
}

bool is_data_path(std::string_view path) {
  return path == "state.json" || path == "text" || path == "tokens.npy" ||
         layer_of_path(path).has_value();
}

std::string layer_path(std::size_t layer) {
  return fmt::format("kv/layer-{:03}.safetensors", layer);
}

std::optional<std::uint16_t> layer_of_path(std::string_view path) {
  constexpr std::string_view kPrefix = "kv/layer-";
  std::uint16_t layer = 0;
  if (!path.starts_with(kPrefix)) return std::nullopt;
  const std::string_view digits = path.substr(kPrefix.size());
  std::from_chars(digits.data(), digits.data() + digits.size(), layer);
  if (layer_path(layer) != path) return std::nullopt;
  return layer;
}

namespace {

// The state or, after its name and '@', the snapshot; nothing when there is neither.
Result<StateId> step_down(store::Store& store, StateId at, std::string_view part, bool last) {
  const auto entry = store.lookup(at, part);
  if (entry && entry->kind == store::NameEntry::Kind::kState) return entry->state;
  if (!entry && entry.error().code != ErrorCode::kNotFound) return fail(entry.error());
  const auto sign = part.rfind('@');
  if (!last || sign == std::string_view::npos) return StateId{};
  const auto of = store.lookup(at, part.substr(0, sign));
  if (!of || of->kind != store::NameEntry::Kind::kState) return StateId{};
  return store.snapshot(of->state, part.substr(sign + 1));
}

}  // namespace

Result<StateId> resolve(store::Store& store, std::string_view path) {
  while (path.ends_with('/')) path.remove_suffix(1);
  StateId at;
  std::string_view rest = path;
  while (!rest.empty()) {
    const auto part = rest.substr(0, rest.find('/'));
    rest.remove_prefix(std::min(rest.size(), part.size() + 1));
    if (part.empty()) continue;
    KVFS_ASSIGN(at, step_down(store, at, part, rest.empty()));
    if (at) continue;
    const auto until = static_cast<std::size_t>(part.data() + part.size() - path.data());
    return fail(ErrorCode::kNotFound, "state " + std::string(path),
                "there is no state " + std::string(path.substr(0, until)),
                "create it, or look at what there is with kvfs ls");
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
    path = (record.snapshot ? "@" : "/") + record.name + path;
    state = record.parent;
  }
  if (!path.empty()) path.erase(0, 1);
  return path;
}

}  // namespace kvfs::sched
