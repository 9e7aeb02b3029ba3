// What users do to states, the same for the mount, HTTP and the command line. Each is one
// transaction on the store's writer thread; `done` is called there (from the caller's thread when
// refused at once). Rules: filesystem.md.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "engine/sched/scheduler.h"
#include "engine/store/store.h"

namespace kvfs::sched {

struct Owner {
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
};

// A new state under parent (none: states/). Under a state it is a fork: it starts with the parent's
// version and params. Names: 1 to 255 bytes, no '/', NUL; not "." or ".."; under a state not one of
// the names the daemon lists there (reserved_names).
void create_state(store::Store& store, StateId parent, std::string_view name, const Owner& owner,
                  std::uint32_t mode, const ParamMap& params,
                  std::function<void(Result<StateId>)> done);
// A fork anywhere: `kvfs fork SRC DST`.
void fork_state(store::Store& store, StateId source, StateId parent, std::string_view name,
                const Owner& owner, std::function<void(Result<StateId>)> done);
// A read-only state under a name of its own among the state's snapshots.
void take_snapshot(store::Store& store, StateId state, std::string_view name,
                   std::function<void(Result<StateId>)> done);
void set_pinned(store::Store& store, StateId state, bool pinned, std::function<void(Status)> done);
// A state or a snapshot. Cancels its jobs, then drops it. kNotEmpty: children, snapshots or users'
// files; kPermission: pinned.
void remove_state(store::Store& store, Scheduler& scheduler, StateId state,
                  std::function<void(Status)> done);
void rename_state(store::Store& store, StateId state, StateId new_parent, std::string_view new_name,
                  std::function<void(Status)> done);
// Checked first; an empty value restores the default. changed_ns: of the state, 0: now. soon: as
// Store::write_soon().
void set_param(store::Store& store, StateId state, std::string_view name, std::string_view value,
               std::function<void(Status)> done, std::int64_t changed_ns = 0, bool soon = false);

// Whether a state under parent may have that name.
Status check_state_name(StateId parent, std::string_view name);
// Names a state's directory always has: state.json, text, tokens.npy, kv, params, feed, continue,
// ask, replies, status, ctl, .snap.
bool is_reserved_name(std::string_view name);

// Of a state's data, as a path below it: state.json, text, tokens.npy, kv/layer-007.safetensors.
bool is_data_path(std::string_view path);
std::string layer_path(std::size_t layer);
std::optional<std::uint16_t> layer_of_path(std::string_view path);

// "a/b/c" → the state, "a/b@c" → its snapshot; kNotFound names the part that is missing.
Result<StateId> resolve(store::Store& store, std::string_view path);
Result<std::string> path_of(store::Store& store, StateId state);

// The mount's root `status` and the CLI's: `key value` lines.
std::string root_status(store::Store& store, Scheduler& scheduler, Catalog& catalog);

}  // namespace kvfs::sched
