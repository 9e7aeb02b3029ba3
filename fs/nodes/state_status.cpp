#include "fs/nodes/state_status.h"

#include <fcntl.h>

#include <algorithm>
#include <string>
#include <vector>

#include "fs/modes.h"
#include "fs/nodes/generated_file.h"
#include "fs/nodes/kept_file.h"

namespace kvfs::fs {
namespace {

std::string jobs_of(Context& context, StateId state) {
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
    text += sched::status_lines(job);
  }
  for (; refusal != refusals.end(); ++refusal) {
    text += refusal->subject + " error: " + refusal->message + "\n";
  }
  return text;
}

// What a copy that arrives waits for, the jobs, and what the status of the original said.
std::string text_of(Context& context, StateId state) {
  std::string text = context.arrivals.line(context, state);
  if (!text.empty()) text += '\n';
  text += jobs_of(context, state);
  if (const auto kept = context.store.file(state, store::FileArea::kKept, kKeptStatus)) {
    text += kept->content;
  }
  return text;
}

// At rest it stays what it is: tar and rsync look at it twice.
std::int64_t changed_ns(Context& context, StateId state, const store::StateRecord& record) {
  std::int64_t at = std::max(record.changed_ns, record.advanced_ns);
  if (const auto kept = context.store.file(state, store::FileArea::kKept, kKeptStatus)) {
    at = kept->changed_ns;
  }
  for (const Refusal& refusal : context.refusals.of(state)) at = std::max(at, refusal.at_ns);
  for (const sched::JobView& job : context.scheduler.jobs(state)) {
    if (job.record.status < store::JobStatus::kDone) return now_ns();
    at = std::max({at, job.record.submitted_ns, job.record.finished_ns});
  }
  return at;
}

// Written by a copy alone: what it says is kept below what the daemon has to say.
class StatusFile : public GeneratedFile {
 public:
  StatusFile(Context& context, StateId state, Ino ino, Kind kind, StateId of, Owner owner,
             Producer producer)
      : GeneratedFile(ino, kind, of, std::move(owner), std::move(producer)),
        context_(context),
        state_(state) {}

  void change(const Changes& changes, Done done) override {
    if (changes.size) return done({});
    const auto kept = context_.store.file(state_, store::FileArea::kKept, kKeptStatus);
    if (!changes.modified_ns || !kept) return done({});
    keep(context_, state_, store::FileArea::kKept, kKeptStatus, kept->content,
         *changes.modified_ns, std::move(done));
  }
  Result<std::unique_ptr<Handle>> open(int flags) override {
    if ((flags & O_ACCMODE) == O_RDONLY) return GeneratedFile::open(flags);
    return keeping_handle(context_, state_, store::FileArea::kKept, kKeptStatus, {});
  }

 private:
  Context& context_;
  const StateId state_;
};

}  // namespace

NodePtr state_status(Context& context, StateId state) {
  return std::make_shared<StatusFile>(
      context, state,
      ino_of(state, StatePart::kStatus), GeneratedFile::Kind::kChanging, state,
      [&context, state]() -> Result<Attributes> {
        KVFS_ASSIGN(const store::StateRecord record, context.store.state(state));
        return Attributes{.mode = file_mode(record, kReadWrite),
                          .uid = record.uid,
                          .gid = record.gid,
                          .size = 0,
                          .changed_ns = changed_ns(context, state, record)};
      },
      [&context, state]() -> Result<std::string> { return text_of(context, state); });
}

}  // namespace kvfs::fs
