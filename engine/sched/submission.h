// A submission's way to a job's row: everything that can be known before it runs. Any thread.
#pragma once

#include "engine/sched/history.h"
#include "engine/sched/known_texts.h"
#include "engine/sched/scheduler.h"

namespace kvfs::sched {

// The row as it will be committed, but for its name where none was given, its base and its status.
// changing: a job that changes the state is queued or running, so that what the state holds now
// says little about what this job will find.
Result<store::JobRecord> examine(store::Store& store, Catalog& catalog, HistoryCache& histories,
                                 KnownTexts& known, const Submission& submission, bool changing);

}  // namespace kvfs::sched
