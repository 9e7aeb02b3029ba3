#include "engine/store/jobs.h"

#include <string>

#include "engine/store/keys.h"
#include "engine/store/layouts.h"
#include "engine/store/states.h"
#include "engine/store/versions.h"
#include "engine/store/write_transaction.h"

namespace kvfs::store {
namespace {

std::string name_of(JobId id) { return "job " + std::to_string(id.value); }

Key state_job_key(StateId state, JobId job) { return Key().id(state).id(job); }

Status put_job(Txn& txn, JobId id, const JobRecord& job) {
  return txn.put(Table::kJobs, key_of(id), encode(job));
}

Status erase_job(Txn& txn, JobId id, StateId state) {
  KVFS_TRY(txn.erase(Table::kStateJobs, state_job_key(state, id)));
  KVFS_TRY(txn.erase(Table::kJobs, key_of(id)));
  return {};
}

Status note_job(TransactionScope& scope, const JobRecord& job) {
  if (!scope.watched) return {};
  Change change{.kind = Change::Kind::kJob, .state = job.state, .job = job};
  change.job.prompt.clear();
  change.job.params.clear();
  return note_change(scope, std::move(change));
}

}  // namespace

Result<JobRecord> read_job(const Txn& txn, JobId id) {
  KVFS_ASSIGN(const auto bytes, txn.get(Table::kJobs, key_of(id)));
  if (!bytes) return fail(ErrorCode::kNotFound, name_of(id), "there is no such job");
  return decode_job(*bytes, name_of(id));
}

Result<std::vector<JobRow>> read_jobs(const Txn& txn) {
  std::vector<JobRow> rows;
  KVFS_ASSIGN(Cursor cursor, Cursor::open(txn, Table::kJobs));
  KVFS_ASSIGN(bool found, cursor.seek({}));
  while (found) {
    const auto id = id_from_key<JobId>(cursor.key());
    KVFS_ASSIGN(JobRecord job, decode_job(cursor.value(), name_of(id)));
    rows.emplace_back(id, std::move(job));
    KVFS_ASSIGN(found, cursor.next());
  }
  return rows;
}

Result<std::vector<JobRow>> read_jobs_of(const Txn& txn, StateId state) {
  std::vector<JobRow> rows;
  const Key prefix = key_of(state);
  KVFS_ASSIGN(Cursor cursor, Cursor::open(txn, Table::kStateJobs));
  KVFS_ASSIGN(bool found, cursor.seek(prefix));
  while (found && starts_with(cursor.key(), prefix)) {
    const auto id = id_from_key<JobId>(cursor.key(), sizeof(std::uint64_t));
    KVFS_ASSIGN(JobRecord job, read_job(txn, id));
    rows.emplace_back(id, std::move(job));
    KVFS_ASSIGN(found, cursor.next());
  }
  return rows;
}

Status remove_finished_jobs_of(Txn& txn, StateId state) {
  KVFS_ASSIGN(const std::vector<JobRow> rows, read_jobs_of(txn, state));
  for (const auto& [id, job] : rows) {
    if (is_finished(job.status)) KVFS_TRY(erase_job(txn, id, state));
  }
  return {};
}

// --- WriteTransaction: an unfinished job holds its base -----------------------------------------

Result<JobRecord> WriteTransaction::job(JobId id) { return read_job(scope_.txn, id); }

Result<JobId> WriteTransaction::add_job(const JobRecord& record) {
  KVFS_TRY(require_state(scope_.txn, record.state));
  JobRecord job = record;
  if (is_finished(job.status)) job.base = {};
  if (job.base) KVFS_TRY(hold(scope_, job.base));
  const JobId id{scope_.counters.next_job++};
  KVFS_TRY(put_job(scope_.txn, id, job));
  KVFS_TRY(scope_.txn.put(Table::kStateJobs, state_job_key(job.state, id), {}));
  KVFS_TRY(note_job(scope_, job));
  return id;
}

Status WriteTransaction::update_job(JobId id, const JobRecord& record) {
  KVFS_ASSIGN(const JobRecord stored, read_job(scope_.txn, id));
  if (record.state != stored.state) {
    return fail(ErrorCode::kInvalid, name_of(id), "a job cannot move to another state");
  }
  JobRecord job = record;
  if (is_finished(job.status)) {
    job.base = {};
    if (stored.base) KVFS_TRY(release(scope_, stored.base));
    KVFS_ASSIGN(const auto state, scope_.txn.get(Table::kStates, key_of(job.state)));
    if (!state) return erase_job(scope_.txn, id, job.state);
  } else if (stored.base) {
    if (job.base && job.base != stored.base) {
      return fail(ErrorCode::kInvalid, name_of(id), "it runs on another version already");
    }
    job.base = stored.base;
  } else if (job.base) {
    KVFS_TRY(hold(scope_, job.base));
  }
  if (job.status != stored.status) KVFS_TRY(note_job(scope_, job));
  return put_job(scope_.txn, id, job);
}

Status WriteTransaction::remove_job(JobId id) {
  KVFS_ASSIGN(const JobRecord job, read_job(scope_.txn, id));
  if (job.base) KVFS_TRY(release(scope_, job.base));
  return erase_job(scope_.txn, id, job.state);
}

}  // namespace kvfs::store
