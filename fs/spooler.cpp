#include "fs/spooler.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "codec/base/log.h"
#include "fs/scratch_names.h"

namespace kvfs::fs::spooler {
namespace {

using Phase = StagedFile::Phase;
using FilePtr = std::shared_ptr<StagedFile>;

constexpr std::chrono::milliseconds kUnwritten{1000};  // how long `touch` leaves a file there
constexpr std::chrono::milliseconds kSettles{100};     // a status is published soon after its event
constexpr std::chrono::milliseconds kLooksAgain{10};
constexpr std::chrono::milliseconds kCancelBound{5000};

bool is_job(const Place& place, std::string_view name) {
  return place.is_spool() && !is_scratch_name(name);
}

// Jobs have names in directories that nobody wrote to.
void tell_names(Context& context, StateId state) {
  for (const StatePart part :
       {StatePart::kFeed, StatePart::kContinue, StatePart::kAsk, StatePart::kReplies}) {
    const Ino directory = ino_of(state, part);
    context.name_times.changed(directory);
    context.listings.changed(directory);
    context.background_notifier.listing_now(directory);
  }
}

// The jobs of a state that have a row and have not ended.
std::vector<sched::JobView> pending(Context& context, const Place& place) {
  const auto kind = kind_of(place.part);
  std::vector<sched::JobView> jobs = context.scheduler.jobs(place.state);
  std::erase_if(jobs, [&](const sched::JobView& job) {
    return !job.id || !kind || job.record.kind != *kind ||
           job.record.status >= store::JobStatus::kDone;
  });
  return jobs;
}

FilePtr adopt(Context& context, const Place& place, const sched::JobView& job) {
  const auto record = context.store.job(job.id);
  if (!record) return nullptr;
  auto file = std::make_shared<StagedFile>(context, place, job.record.name, record->prompt);
  return context.staging.add(std::move(file));
}

void vanish(Context& context, const StagedFile& file) {
  const Place place = file.place();
  const std::string name = file.name();
  context.staging.remove(place, name, &file);
  context.background_notifier.entry(place.ino(), name);
}

// A file whose job has ended is taken away by whoever notices first.
bool ended(Context& context, StagedFile& file, const std::vector<sched::JobView>& jobs) {
  const std::string name = file.name();
  const bool is_pending =
      std::ranges::any_of(jobs, [&](const sched::JobView& job) { return job.record.name == name; });
  if (is_pending || !file.advance(Phase::kSubmitted, Phase::kGone)) return false;
  vanish(context, file);
  return true;
}

sched::Submission submission(const StagedFile& file, const Place& place, std::string name) {
  return {.state = place.state,
          .kind = kind_of(place.part).value_or(store::JobKind::kAsk),
          .name = std::move(name),
          .prompt = file.content()};
}

// The refusal stands in `status` and is what its reply reads.
void state_refusal(Context& context, const sched::Submission& job, const Error& error) {
  context.scheduler.announce(job.state, job.kind, job.name);
  context.scheduler.withdraw(job.state, job.name, error);
  tell_names(context, job.state);
}

Status judge(Context& context, StagedFile& file) {
  const std::uint64_t revision = file.revision();
  if (const auto known = file.verdict(); known && known->revision == revision) {
    return known->error ? Status(fail(*known->error)) : Status();
  }
  const sched::Submission job = submission(file, file.place(), file.name());
  const auto failed = file.failed();
  const Status status = failed ? Status(fail(*failed)) : context.scheduler.check(job);
  if (status) {
    context.scheduler.announce(job.state, job.kind, job.name);
    tell_names(context, job.state);
    file.set_announced(true);
    file.set_verdict({revision, std::nullopt});
  } else {
    state_refusal(context, job, status.error());
    file.set_announced(false);
    file.set_verdict({revision, status.error()});
  }
  return status;
}

// Answers when the canceled job has ended, so that its name is free: a running one stops after its
// present step. Later than the bound it will end by itself.
void answer_when_ended(Context& context, FilePtr file, std::chrono::steady_clock::time_point bound,
                       Done done) {
  const auto jobs = pending(context, file->place());
  const bool still = std::ranges::any_of(
      jobs, [&](const sched::JobView& job) { return job.record.name == file->name(); });
  if (!still || std::chrono::steady_clock::now() > bound) {
    if (file->advance(Phase::kSubmitted, Phase::kGone)) vanish(context, *file);
    return done({});
  }
  context.chores.post_after(
      kLooksAgain, [&context, file = std::move(file), bound, done = std::move(done)]() mutable {
        answer_when_ended(context, std::move(file), bound, std::move(done));
      });
}

void cancel(Context& context, FilePtr file, Done done) {
  context.chores.post([&context, file = std::move(file), done = std::move(done)] {
    const Status status = context.scheduler.cancel(file->place().state, file->name());
    // Not found: it ended meanwhile, which is what was wanted.
    if (!status && status.error().code != ErrorCode::kNotFound) return done(status);
    answer_when_ended(context, file, std::chrono::steady_clock::now() + kCancelBound, done);
  });
}

void submitted(Context& context, const FilePtr& file, const Result<JobId>& id, const Done& done) {
  if (!id) {
    file->advance(Phase::kSubmitting, Phase::kGone);
    context.scheduler.withdraw(file->place().state, file->name(), id.error());
    vanish(context, *file);
    return done(fail(id.error()));
  }
  file->advance(Phase::kSubmitting, Phase::kSubmitted);
  if (file->cancel_wanted()) {
    cancel(context, file, [](const Status&) {});
  } else {
    ended(context, *file, pending(context, file->place()));
  }
  done({});
}

void submit(Context& context, FilePtr file, Done done) {
  if (const Status status = judge(context, *file); !status) {
    if (file->advance(Phase::kStaged, Phase::kGone)) vanish(context, *file);
    return done(status);
  }
  if (!file->advance(Phase::kStaged, Phase::kSubmitting)) return done({});
  sched::Submission job = submission(*file, file->place(), file->name());
  context.scheduler.submit_async(
      std::move(job), [alive = context.alive(), file, done = std::move(done)](Result<JobId> id) {
        // Off the store's writer thread, which this may be.
        alive->chores.post([&context = *alive, file, done, id = std::move(id)] {
          submitted(context, file, id, done);
        });
      });
}

void submit_later(Context& context, const FilePtr& file) {
  const auto log = [name = file->name()](const Status& status) {
    if (!status) KVFS_INFO("spooled file {}: {}", name, status.error().message());
  };
  const auto delay = context.behaviour.spool_delay;
  if (delay.count() == 0) return submit(context, file, log);
  context.chores.post_after(delay, [&context, file, log, revision = file->revision()] {
    // Written again meanwhile: what ends that starts the clock anew.
    const bool ended = context.behaviour.noblock || !file->being_written();
    if (file->revision() == revision && ended) submit(context, file, log);
  });
}

void forget_unwritten(Context& context, const FilePtr& file) {
  context.chores.post_after(kUnwritten, [&context, file] {
    if (file->written() || file->open_for_writing() || !is_job(file->place(), file->name())) return;
    if (file->advance(Phase::kStaged, Phase::kGone)) vanish(context, *file);
  });
}

}  // namespace

std::optional<store::JobKind> kind_of(StatePart part) {
  switch (part) {
    case StatePart::kFeed:
      return store::JobKind::kFeed;
    case StatePart::kContinue:
      return store::JobKind::kContinue;
    case StatePart::kAsk:
      return store::JobKind::kAsk;
    default:
      return std::nullopt;
  }
}

FilePtr find(Context& context, const Place& place, std::string_view name) {
  FilePtr file = context.staging.find(place, name);
  if (file && file->phase() != Phase::kSubmitted) return file;
  const auto jobs = pending(context, place);
  if (file && !ended(context, *file, jobs)) return file;
  for (const auto& job : jobs) {
    if (job.record.name == name) return adopt(context, place, job);
  }
  return nullptr;
}

std::vector<FilePtr> list(Context& context, const Place& place) {
  const auto jobs = pending(context, place);
  for (const auto& job : jobs) {
    if (!context.staging.find(place, job.record.name)) adopt(context, place, job);
  }
  std::vector<FilePtr> files = context.staging.list(place);
  std::erase_if(files, [&](const FilePtr& file) { return ended(context, *file, jobs); });
  return files;
}

Status closed(Context& context, const FilePtr& file) {
  if (!is_job(file->place(), file->name()) || file->phase() != Phase::kStaged) return {};
  KVFS_TRY(judge(context, *file));
  const Behaviour& behaviour = context.behaviour;
  if (behaviour.noblock && behaviour.spool_delay.count() != 0) submit_later(context, file);
  return {};
}

void released(Context& context, FilePtr file, const StagedFile::Writer& writer) {
  if (!writer.may_write || !is_job(file->place(), file->name())) return;
  if (file->phase() != Phase::kStaged || file->being_written()) return;
  if (writer.wrote || (writer.empties && !file->written())) return submit_later(context, file);
  if (!file->written()) forget_unwritten(context, file);
}

void move(Context& context, FilePtr file, const Place& to, const std::string& new_name,
          bool replace, Done done) {
  const auto busy = [&](const std::string& name) {
    return done(fail(ErrorCode::kBusy, "renaming to " + name, "its job is not finished yet",
                     "choose another name, wait for it, or remove it to cancel the job"));
  };
  if (file->phase() != Phase::kStaged) return busy(file->name());
  if (const FilePtr there = find(context, to, new_name); there && there != file) {
    if (!replace) return done(fail(ErrorCode::kExists, "renaming to " + new_name, "it is there"));
    if (!there->advance(Phase::kStaged, Phase::kGone)) return busy(new_name);
    context.staging.remove(to, new_name, there.get());
  }
  const bool now = is_job(to, new_name) && !file->being_written();
  if (now) {
    const sched::Submission job = submission(*file, to, new_name);
    if (Status status = context.scheduler.check(job); !status) {
      state_refusal(context, job, status.error());
      return done(std::move(status));
    }
  }
  const Place from = file->place();
  const std::string old_name = file->name();
  if (!file->move_to(to, new_name)) return busy(old_name);
  context.staging.remove(from, old_name, file.get());
  if (file->set_announced(false)) context.scheduler.withdraw(from.state, old_name, std::nullopt);
  context.staging.add(file);
  if (!now) return done({});
  submit(context, std::move(file), std::move(done));
}

void remove(Context& context, FilePtr file, Done done) {
  const Place place = file->place();
  const std::string name = file->name();
  if (file->advance(Phase::kStaged, Phase::kGone)) {
    context.staging.remove(place, name, file.get());
    if (file->set_announced(false)) context.scheduler.withdraw(place.state, name, std::nullopt);
    return done({});
  }
  if (file->phase() == Phase::kSubmitting) {
    file->want_cancel();
    // It may have been submitted since.
    if (file->phase() == Phase::kSubmitting) return done({});
  }
  cancel(context, std::move(file), std::move(done));
}

void settle(Context& context, StateId state, const std::string& job) {
  tell_names(context, state);
  const auto once = [&context, state, job] {
    for (const StatePart part : {StatePart::kFeed, StatePart::kContinue, StatePart::kAsk}) {
      const Place place{state, part};
      const FilePtr file = context.staging.find(place, job);
      if (file && file->phase() == Phase::kSubmitted) {
        ended(context, *file, pending(context, place));
      }
    }
  };
  context.chores.post(once);
  context.chores.post_after(kSettles, once);
}

void submit_closed(Context& context, std::chrono::steady_clock::time_point bound) {
  for (const FilePtr& file : context.staging.all()) {
    if (std::chrono::steady_clock::now() > bound) return;
    if (!is_job(file->place(), file->name())) continue;
    const auto verdict = file->verdict();
    if (!verdict || verdict->error || verdict->revision != file->revision()) continue;
    if (!file->advance(Phase::kStaged, Phase::kSubmitting)) continue;
    const auto id = context.scheduler.submit(submission(*file, file->place(), file->name()));
    if (!id) KVFS_WARN("spooled file {}: {}", file->name(), id.error().message());
    file->advance(Phase::kSubmitting, Phase::kGone);
  }
}

}  // namespace kvfs::fs::spooler
