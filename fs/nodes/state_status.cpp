#include "fs/nodes/state_status.h"

#include <algorithm>
#include <string>
#include <vector>

#include "fs/modes.h"
#include "fs/nodes/generated_file.h"

namespace kvfs::fs {
namespace {

std::string text_of(Context& context, StateId state) {
  const std::vector<Refusal> refusals = context.refusals.of(state);
  if (refusals.empty()) return context.scheduler.status_text(state);
  std::string text;
  auto refusal = refusals.begin();
  for (const sched::JobView& job : context.scheduler.jobs(state)) {
    while (refusal != refusals.end() && job.record.submitted_ns != 0 &&
           refusal->at_ns > job.record.submitted_ns) {
      text += refusal->subject + " error: " + refusal->message + "\n";
      ++refusal;
    }
    text += sched::status_line(job);
    if (!text.ends_with('\n')) text += '\n';
  }
  for (; refusal != refusals.end(); ++refusal) {
    text += refusal->subject + " error: " + refusal->message + "\n";
  }
  return text;
}

// At rest it stays what it is: tar and rsync look at it twice.
std::int64_t changed_ns(Context& context, StateId state, const store::StateRecord& record) {
  std::int64_t at = std::max(record.changed_ns, record.advanced_ns);
  for (const Refusal& refusal : context.refusals.of(state)) at = std::max(at, refusal.at_ns);
  for (const sched::JobView& job : context.scheduler.jobs(state)) {
    if (job.record.status < store::JobStatus::kDone) return now_ns();
    at = std::max({at, job.record.submitted_ns, job.record.finished_ns});
  }
  return at;
}

}  // namespace

NodePtr state_status(Context& context, StateId state) {
  return std::make_shared<GeneratedFile>(
      ino_of(state, StatePart::kStatus), GeneratedFile::Kind::kChanging, state,
      [&context, state]() -> Result<Attributes> {
        KVFS_ASSIGN(const store::StateRecord record, context.store.state(state));
        return Attributes{.mode = file_mode(record, kReadOnly),
                          .uid = record.uid,
                          .gid = record.gid,
                          .size = 0,
                          .changed_ns = changed_ns(context, state, record)};
      },
      [&context, state]() -> Result<std::string> { return text_of(context, state); });
}

}  // namespace kvfs::fs
