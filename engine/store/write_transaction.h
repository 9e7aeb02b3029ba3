// What may be done inside one write transaction. Writer thread only, valid during the call that got
// it. Changes become visible and durable together, or not at all.
#pragma once

#include <string_view>

#include "engine/store/store.h"

namespace kvfs::store {

class WriteTransaction {
 public:
  virtual ~WriteTransaction() = default;

  // Reads that see this transaction's own changes.
  virtual Result<StateRecord> state(StateId id) = 0;
  virtual Result<NameEntry> lookup(StateId parent, std::string_view name) = 0;
  virtual Result<VersionRecord> version(VersionId id) = 0;
  virtual Result<JobRecord> job(JobId id) = 0;

  // The record's parent and name place it; kExists when the name is taken, kNotFound when the parent
  // is gone. Its version (a fork's) gains a reference.
  virtual Result<StateId> create_state(const StateRecord& record) = 0;
  // kNotEmpty while children are left. Drops its version, its files and its finished jobs' rows.
  virtual Status remove_state(StateId id) = 0;
  // Moves and renames; kExists unless the target is free; kInvalid when it would be its own ancestor.
  virtual Status rename_state(StateId id, StateId new_parent, std::string_view new_name) = 0;
  // Everything but parent, name and version.
  virtual Status update_state(StateId id, const StateRecord& record) = 0;
  // The state's new version: references move with it.
  virtual Status set_version(StateId id, VersionId version) = 0;

  // Blocks must exist; each gains a reference. The record's references field is ignored: it starts
  // with none and is dropped at the end of the transaction unless something refers to it.
  virtual Result<VersionId> add_version(const VersionRecord& record) = 0;
  virtual Status hold_version(VersionId id) = 0;     // one reference more
  virtual Status release_version(VersionId id) = 0;  // one less; dropped with the last

  virtual Result<JobId> add_job(const JobRecord& record) = 0;   // a set base gains a reference
  // base: may be set once (gains a reference); a finished status releases it.
  virtual Status update_job(JobId id, const JobRecord& record) = 0;
  virtual Status remove_job(JobId id) = 0;

  // Creates or replaces; keeps the FileId of what it replaces. Returns the id.
  virtual Result<FileId> put_file(StateId state, FileArea area, std::string_view name,
                                  const FileRecord& record) = 0;
  virtual Status remove_file(StateId state, FileArea area, std::string_view name) = 0;
};

}  // namespace kvfs::store
