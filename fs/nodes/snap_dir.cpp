#include "fs/nodes/snap_dir.h"

#include <utility>

#include "fs/nodes/root.h"
#include "fs/nodes/state_dir.h"

namespace kvfs::fs {

Result<NodePtr> SnapDir::lookup(std::string_view name) {
  KVFS_ASSIGN(const StateId snapshot, context().store.snapshot(state(), name));
  return state_dir(context(), snapshot);
}

Result<std::vector<Entry>> SnapDir::list() {
  std::vector<Entry> entries;
  KVFS_ASSIGN(const auto snapshots, context().store.snapshots(state()));
  for (const auto& entry : snapshots) {
    entries.push_back({entry.name, true, ino_of(entry.state, StatePart::kDirectory)});
  }
  return entries;
}

void SnapDir::make_directory(const std::string& name, const Caller& /*caller*/,
                             Answer<NodePtr> done) {
  store_files_of(context(), state(),
                 [alive = context().alive(), of = state(), name,
                  done = std::move(done)](const Status& stored) {
                   if (!stored) return done(fail(stored.error()));
                   sched::take_snapshot(
                       alive->store, of, name, [alive, done](Result<StateId> made) {
                         done(made ? state_dir(*alive, *made) : fail(made.error()));
                       });
                 });
}

void SnapDir::remove_directory(const std::string& name, Done done) {
  const auto snapshot = context().store.snapshot(state(), name);
  if (!snapshot) return done(fail(snapshot.error()));
  sched::remove_state(context().store, context().scheduler, *snapshot, std::move(done));
}

void SnapDir::rename(const std::string& name, Directory& /*to*/, const std::string& new_name,
                     bool /*replace*/, Done done) {
  const auto snapshot = context().store.snapshot(state(), name);
  if (!snapshot) return done(fail(snapshot.error()));
  sched::rename_state(context().store, *snapshot, state(), new_name, std::move(done));
}

tl::unexpected<Error> refuse_in_snapshot(const std::string& name) {
  return fail(ErrorCode::kPermission, "changing snapshot " + name, "it is read-only",
              "fork it, or copy it with cp -r, and change that");
}

}  // namespace kvfs::fs
