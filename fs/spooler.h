// From a written file to a job: the verdict at each close, the submission at the last release or at
// a rename into place, and the file's end with its job's.
//
// Free functions on a StagedFile and the mount's Context; any thread. The scheduler is the truth
// about which jobs are pending; staged files follow it.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/store/records.h"
#include "fs/context.h"
#include "fs/staged_file.h"

namespace kvfs::fs::spooler {

std::optional<store::JobKind> kind_of(StatePart part);  // of the jobs a directory makes

// The staged file or pending job of that name; null.
std::shared_ptr<StagedFile> find(Context& context, const Place& place, std::string_view name);
std::vector<std::shared_ptr<StagedFile>> list(Context& context, const Place& place);

// A descriptor was closed after writing: what can be known of the prompt so far. Announces the job.
// With noblock that is enough for a submission, once nothing more was written for the spool's
// delay: an NFS server keeps files open for minutes.
Status closed(Context& context, const std::shared_ptr<StagedFile>& file);
// A handle was released.
void released(Context& context, std::shared_ptr<StagedFile> file, const StagedFile::Writer& writer);
// Renamed: a job when that is a job's name and nobody still writes; refused, it stays where it was.
void move(Context& context, std::shared_ptr<StagedFile> file, const Place& to,
          const std::string& new_name, bool replace, Done done);
// Unlinked: cancels.
void remove(Context& context, std::shared_ptr<StagedFile> file, Done done);
// The job's status changed: its file vanishes when it is not pending any more.
void settle(Context& context, StateId state, const std::string& job);

// The mount has ended: what was closed and found good, but not released or not due yet, becomes a
// job now. Waits for the store, at most until `bound`.
void submit_closed(Context& context, std::chrono::steady_clock::time_point bound);

}  // namespace kvfs::fs::spooler
