// The tables jobs and state_jobs: prompts that were handed in, and what became of them.
#pragma once

#include "engine/store/transaction_scope.h"

namespace kvfs::store {

using JobRow = std::pair<JobId, JobRecord>;

constexpr bool is_finished(JobStatus status) { return status >= JobStatus::kDone; }

Result<JobRecord> read_job(const Txn& txn, JobId id);
Result<std::vector<JobRow>> read_jobs(const Txn& txn);                    // ascending id
Result<std::vector<JobRow>> read_jobs_of(const Txn& txn, StateId state);  // ascending id
Status remove_finished_jobs_of(Txn& txn, StateId state);

}  // namespace kvfs::store
