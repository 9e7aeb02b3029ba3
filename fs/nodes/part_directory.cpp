#include "fs/nodes/part_directory.h"

#include "fs/modes.h"
#include "fs/nodes/snap_dir.h"
#include "fs/nodes/state_dir.h"

namespace kvfs::fs {

PartDirectory::PartDirectory(Context& context, StateId state, StatePart part)
    : Directory(ino_of(state, part)), context_(context), state_(state), part_(part) {}

Result<Attributes> PartDirectory::attributes() {
  KVFS_ASSIGN(const store::StateRecord record, context_.store.state(state_));
  return Attributes{.mode = directory_mode(record),
                    .uid = record.uid,
                    .gid = record.gid,
                    .size = 0,
                    .changed_ns = context_.name_times.at_least(ino(), record.created_ns)};
}

Status PartDirectory::writable() const {
  KVFS_ASSIGN(const store::StateRecord record, context_.store.state(state_));
  return record.snapshot ? refuse_in_snapshot(record.name) : Status();
}

// cp -a sets owner, mode and times of what it copied onto: they are the state's.
void PartDirectory::change(const Changes& /*changes*/, Done done) { done({}); }

Result<NodePtr> PartDirectory::parent() { return state_dir(context_, state_); }

}  // namespace kvfs::fs
