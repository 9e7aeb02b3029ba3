// What may be done inside one write transaction. Writer thread only, valid during the call that got
// it. Changes become visible and durable together, or not at all.
#pragma once

#include <string_view>

#include "engine/store/store.h"

namespace kvfs::store {

struct TransactionScope;  // transaction_scope.h

class WriteTransaction {
 public:
  explicit WriteTransaction(TransactionScope& scope) : scope_(scope) {}
  WriteTransaction(const WriteTransaction&) = delete;
  WriteTransaction& operator=(const WriteTransaction&) = delete;

  // Reads that see this transaction's own changes.
  Result<StateRecord> state(StateId id);
  Result<NameEntry> lookup(StateId parent, std::string_view name);
  Result<VersionRecord> version(VersionId id);
  Result<JobRecord> job(JobId id);

  // The record's parent and name place it; kExists when the name is taken, kNotFound when the
  // parent is gone. Its version (a fork's) gains a reference.
  Result<StateId> create_state(const StateRecord& record);
  // kNotEmpty while children, snapshots or users' files are left (a snapshot's files are its own),
  // kPermission when it is pinned. Drops its version, what is staged for it, its replies and its
  // finished jobs' rows; the row of a job that is not finished goes when update_job finishes it.
  Status remove_state(StateId id);
  // Moves and renames; kExists unless the target is free; kInvalid when it would be its own
  // ancestor.
  Status rename_state(StateId id, StateId new_parent, std::string_view new_name);
  // Everything but parent, name and version.
  Status update_state(StateId id, const StateRecord& record);
  // The state's new version: references move with it.
  Status set_version(StateId id, VersionId version);

  // Blocks must exist, in ascending order of index; each gains a reference. What follows from them
  // is worked out here, whatever the record says: n_tokens, extents, text_bytes, kv_bytes, root.
  // Its references start at none, and it is dropped at the end of the transaction unless something
  // refers to it.
  Result<VersionId> add_version(const VersionRecord& record);
  Status hold_version(VersionId id);     // one reference more
  Status release_version(VersionId id);  // one less; dropped with the last

  Result<JobId> add_job(const JobRecord& record);  // a set base gains a reference
  // base: may be set once (gains a reference); a finished status releases and clears
  // it.
  Status update_job(JobId id, const JobRecord& record);
  Status remove_job(JobId id);

  // A read-only state of this name among the state's snapshots: its version, params and files.
  Result<StateId> create_snapshot(StateId of, std::string_view name, std::int64_t now_ns);

  // --- users' files, file_nodes.cpp
  // kExists when the name is taken.
  Result<FileId> create_node(const FilePlace& place, const FileNode& node);
  // The file that had the new name, which no name leads to now; kExists when it may not be
  // replaced, or is a state.
  Result<std::optional<FileId>> move_node(const FilePlace& from, const FilePlace& to, bool replace);
  // No name leads to it now; it stays until it is reaped.
  Result<FileId> unlink_node(const FilePlace& place);
  Status reap_node(FileId id);  // drops it unless a name leads to it
  Status write_node(FileId id, const FileWrite& write);
  // Its first `bytes` are those of a version's file, instead of what it held: the version is held.
  Status set_source(FileId id, VersionId version, DataPart part, std::uint64_t bytes);
  // The files beside one state, beside the other too: what they hold is shared.
  Status copy_nodes(StateId from, StateId to);
  Result<FileNode> node(FileId id);
  Result<std::vector<NameEntry>> staged(StateId state);
  Status drop_staged(StateId state);

  // Creates or replaces; keeps the FileId of what it replaces. Returns the id.
  Result<FileId> put_file(StateId state, FileArea area, std::string_view name,
                          const FileRecord& record);
  Status remove_file(StateId state, FileArea area, std::string_view name);

 private:
  TransactionScope& scope_;
};

}  // namespace kvfs::store
