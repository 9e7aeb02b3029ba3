#include "engine/sched/job_table.h"

#include <algorithm>
#include <utility>

namespace kvfs::sched {
namespace {

std::string what(const std::string& name) { return "job " + name; }

}  // namespace

// --- places in the table
// ----------------------------------------------------------------------------

JobTable::Job& JobTable::add(StateId state, Phase phase) {
  Job& job = states_[state].emplace_back();
  job.ticket = JobTicket{next_ticket_++};
  job.phase = phase;
  if (job.live()) live_.emplace(job.ticket, state);
  return job;
}

const JobTable::Job* JobTable::look(JobTicket ticket) const {
  const auto live = live_.find(ticket);
  if (live == live_.end()) return nullptr;
  const Jobs& jobs = states_.at(live->second);
  const auto it = std::ranges::lower_bound(jobs, ticket, {}, &Job::ticket);
  return it == jobs.end() || it->ticket != ticket ? nullptr : &*it;
}

const JobTable::Job* JobTable::latest(StateId state, const std::string& name) const {
  const auto jobs = states_.find(state);
  if (jobs == states_.end()) return nullptr;
  const auto it = std::find_if(jobs->second.rbegin(), jobs->second.rend(),
                               [&](const Job& job) { return job.record.name == name; });
  return it == jobs->second.rend() ? nullptr : &*it;
}

std::vector<std::function<void()>> JobTable::leave(JobTicket ticket) {
  const auto it = live_.find(ticket);
  if (it == live_.end()) return {};
  const StateId state = it->second;
  live_.erase(it);
  moved_.insert(state);
  const auto waiting = idle_.find(state);
  if (waiting == idle_.end() || std::ranges::any_of(states_[state], &Job::live)) return {};
  auto callbacks = std::move(waiting->second);
  idle_.erase(waiting);
  return callbacks;
}

// A job may begin when the changes submitted before it are on disk; one that changes the state also
// lets those before it begin first, so that they see what was there when they were submitted.
std::vector<JobTable::Job*> JobTable::free_to_begin(Jobs& jobs) {
  std::vector<Job*> out;
  bool unbound_before = false;
  for (Job& job : jobs) {
    if (!job.live()) continue;
    const bool changes = changes_state(job.record.kind);
    if (!changes || !unbound_before) out.push_back(&job);
    if (changes) break;
    unbound_before = unbound_before || !job.bound;
  }
  return out;
}

JobTable::Handed JobTable::handed(const Job& job) {
  return {job.ticket, job.id, job.record, job.reply};
}

std::set<JobTicket>& JobTable::ready(const Job& job) {
  return ready_[static_cast<std::size_t>(lane_of(job.record.kind))];
}

void JobTable::trim_refused(Jobs& jobs) const {
  auto count = static_cast<std::size_t>(std::ranges::count_if(jobs, &Job::refused));
  std::erase_if(jobs, [&](const Job& job) {
    return job.refused && count > finished_per_state_ && count-- > 0;
  });
}

Status JobTable::check_idle(StateId state) const {
  const auto jobs = states_.find(state);
  if (jobs == states_.end()) return {};
  const auto live = std::ranges::find_if(jobs->second, &Job::live);
  if (live == jobs->second.end()) return {};
  return fail(ErrorCode::kBusy, "prune", "job " + live->record.name + " is not finished",
              "wait for it or cancel it");
}

Status JobTable::require_idle(StateId state) const {
  const std::lock_guard lock(mutex_);
  return check_idle(state);
}

// --- coming in
// --------------------------------------------------------------------------------------

void JobTable::restore(JobId id, store::JobRecord record) {
  const std::lock_guard lock(mutex_);
  const bool bound = record.status == store::JobStatus::kRunning;
  Job& job = add(record.state, is_finished(record.status) ? Phase::kFinished
                               : bound                    ? Phase::kReady
                                                          : Phase::kWaiting);
  job.id = id;
  job.bound = bound;
  job.record = std::move(record);
  if (job.live()) {
    job.reply = std::make_shared<Reply>();
    if (bound) ready(job).insert(job.ticket);
    moved_.insert(job.record.state);
  } else {
    job.record.prompt.clear();
  }
  next_name_ = std::max(next_name_, id.value + 1);
}

Status JobTable::has_room(const std::string& name) const {
  if (live_.size() < queue_limit_) return {};
  return fail(ErrorCode::kAgain, what(name),
              std::to_string(live_.size()) + " jobs are queued already",
              "wait for some of them to finish");
}

Status JobTable::room(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  return has_room(name);
}

Result<JobTable::Reservation> JobTable::reserve(const store::JobRecord& record) {
  const std::lock_guard lock(mutex_);
  if (closed_.contains(record.state)) {
    return fail(ErrorCode::kNotFound, what(record.name), "its state is being removed");
  }
  if (record.kind == store::JobKind::kPrune) KVFS_TRY(check_idle(record.state));
  KVFS_TRY(has_room(record.name));
  Reservation out;
  out.name = record.name;
  while (out.name.empty() || (record.name.empty() && latest(record.state, out.name) != nullptr)) {
    out.name = std::string(name_of(record.kind)) + "-" + std::to_string(next_name_++);
  }
  std::shared_ptr<Reply> reply;
  if (const Job* before = latest(record.state, out.name); before != nullptr) {
    if (before->live()) {
      return fail(ErrorCode::kExists, what(out.name), "a job of that name is not finished yet",
                  "choose another name, wait for it, or cancel it");
    }
    if (before->phase == Phase::kAnnounced) reply = before->reply;
  }
  std::erase_if(states_[record.state], [&](const Job& job) {
    return job.record.name == out.name && (job.phase == Phase::kAnnounced || job.refused);
  });
  if (const Job* before = latest(record.state, out.name); before != nullptr) {
    out.replaces = before->id;
  }
  Job& job = add(record.state, Phase::kReserved);
  job.record = record;
  job.record.name = out.name;
  job.reply = reply ? std::move(reply) : std::make_shared<Reply>();
  job.bound = std::ranges::count(free_to_begin(states_[record.state]), &job) > 0;
  out.ticket = job.ticket;
  out.may_begin = job.bound;
  return out;
}

void JobTable::admit(JobTicket ticket, JobId id, const store::JobRecord& record) {
  const std::lock_guard lock(mutex_);
  Job* job = find(ticket);
  if (job == nullptr) return;
  job->id = id;
  job->record = record;
  job->phase = job->bound ? Phase::kReady : Phase::kWaiting;
  if (job->bound) ready(*job).insert(ticket);
  moved_.insert(record.state);
  std::erase_if(states_[record.state], [&](const Job& other) {
    return other.ticket < ticket && other.record.name == record.name;
  });
}

void JobTable::refuse(JobTicket ticket, const Error& why) {
  std::shared_ptr<Reply> reply;
  std::vector<std::function<void()>> callbacks;
  {
    const std::lock_guard lock(mutex_);
    Job* job = find(ticket);
    if (job == nullptr) return;
    job->phase = Phase::kFinished;
    job->refused = true;
    job->record.status = store::JobStatus::kFailed;
    job->record.error = why.message();
    job->record.prompt.clear();
    reply = job->reply;
    Jobs& jobs = states_[job->record.state];
    callbacks = leave(ticket);
    trim_refused(jobs);
  }
  reply->finish(why);
  for (const auto& callback : callbacks) callback();
}

void JobTable::announce(StateId state, store::JobKind kind, const std::string& name) {
  const std::lock_guard lock(mutex_);
  const Job* before = latest(state, name);
  if (closed_.contains(state) ||
      (before != nullptr && (before->live() || before->phase == Phase::kAnnounced))) {
    return;
  }
  Job& job = add(state, Phase::kAnnounced);
  job.record.state = state;
  job.record.kind = kind;
  job.record.name = name;
  job.reply = std::make_shared<Reply>();
}

void JobTable::withdraw(StateId state, const std::string& name, const std::optional<Error>& why) {
  std::shared_ptr<Reply> reply;
  {
    const std::lock_guard lock(mutex_);
    const Job* before = latest(state, name);
    const bool announced = before != nullptr && before->phase == Phase::kAnnounced;
    if (before != nullptr && before->live()) return;
    if (!announced && !why) return;
    reply = announced ? before->reply : std::make_shared<Reply>();
    const auto kind = announced ? before->record.kind : store::JobKind::kAsk;
    Jobs& jobs = states_[state];
    std::erase_if(jobs, [&](const Job& job) {
      return job.record.name == name && (job.phase == Phase::kAnnounced || job.refused);
    });
    if (why) {
      Job& job = add(state, Phase::kFinished);
      job.refused = true;
      job.reply = reply;
      job.record.state = state;
      job.record.kind = kind;
      job.record.name = name;
      job.record.status = store::JobStatus::kFailed;
      job.record.error = why->message();
      trim_refused(jobs);
    }
  }
  reply->finish(why ? *why : Error{ErrorCode::kCanceled, what(name), "its prompt was taken back"});
}

// --- running
// ----------------------------------------------------------------------------------------

std::vector<std::pair<JobTicket, JobId>> JobTable::to_begin() {
  const std::lock_guard lock(mutex_);
  std::vector<std::pair<JobTicket, JobId>> out;
  for (const StateId state : std::exchange(moved_, {})) {
    const auto jobs = states_.find(state);
    if (jobs == states_.end()) continue;
    for (Job* job : free_to_begin(jobs->second)) {
      if (job->phase != Phase::kWaiting) continue;
      job->phase = Phase::kBeginning;
      out.emplace_back(job->ticket, job->id);
    }
  }
  return out;
}

void JobTable::begun(JobTicket ticket, VersionId base) {
  const std::lock_guard lock(mutex_);
  Job* job = find(ticket);
  if (job == nullptr) return;
  job->phase = Phase::kReady;
  job->bound = true;
  job->record.base = base;
  job->record.status = store::JobStatus::kRunning;
  ready(*job).insert(ticket);
  moved_.insert(job->record.state);
}

std::optional<JobTable::Handed> JobTable::give_up(JobTicket ticket) {
  const std::lock_guard lock(mutex_);
  Job* job = find(ticket);
  if (job == nullptr) return std::nullopt;
  job->phase = Phase::kTaken;
  return handed(*job);
}

std::optional<JobTable::Handed> JobTable::take(
    Lane lane, const std::function<bool(const store::JobRecord&)>& suits) {
  const std::lock_guard lock(mutex_);
  auto& waiting = ready_[static_cast<std::size_t>(lane)];
  const auto it =
      std::ranges::find_if(waiting, [&](JobTicket ticket) { return suits(look(ticket)->record); });
  if (it == waiting.end()) return std::nullopt;
  Job& job = *find(*it);
  waiting.erase(it);
  job.phase = Phase::kTaken;
  return handed(job);
}

bool JobTable::cancel_wanted(JobTicket ticket) const {
  const std::lock_guard lock(mutex_);
  const Job* job = look(ticket);
  return job != nullptr && job->cancel;
}

void JobTable::progress(JobTicket ticket, const Progress& progress) {
  const std::lock_guard lock(mutex_);
  if (Job* job = find(ticket); job != nullptr) job->now = progress;
}

void JobTable::refreshed(JobTicket ticket, Refresh refresh) {
  Refreshed news;
  {
    const std::lock_guard lock(mutex_);
    Job* job = find(ticket);
    if (job == nullptr) return;
    if (job->refreshes.size() == kRefreshesKept) job->refreshes.erase(job->refreshes.begin());
    job->refreshes.push_back(refresh);
    ++job->refreshed;
    news = {job->record.state, job->record.name, std::move(refresh)};
  }
  watchers_.tell({&news, 1});
}

Result<std::pair<JobTable::Cancel, JobTable::Handed>> JobTable::cancel(StateId state,
                                                                       const std::string& name) {
  const std::lock_guard lock(mutex_);
  const Job* seen = latest(state, name);
  if (seen == nullptr) {
    return fail(ErrorCode::kNotFound, what(name), "the state has no such job",
                "its jobs are listed in status");
  }
  if (seen->phase == Phase::kAnnounced) {
    return fail(ErrorCode::kAgain, what(name), "its prompt is still being written",
                "remove the prompt's file");
  }
  if (!seen->live()) {
    return fail(ErrorCode::kNotFound, what(name), "it is finished already");
  }
  Job& job = *find(seen->ticket);
  job.cancel = true;
  if (job.phase != Phase::kWaiting && job.phase != Phase::kReady) {
    return std::pair{Cancel::kSoon, handed(job)};
  }
  job.phase = Phase::kTaken;
  ready(job).erase(job.ticket);
  return std::pair{Cancel::kNow, handed(job)};
}

std::vector<std::pair<JobId, std::string>> JobTable::surplus(StateId state) const {
  const std::lock_guard lock(mutex_);
  std::vector<std::pair<JobId, std::string>> finished;
  const auto jobs = states_.find(state);
  if (jobs == states_.end()) return finished;
  for (const Job& job : jobs->second) {
    if (job.phase == Phase::kFinished && !job.refused) {
      finished.emplace_back(job.id, job.record.name);
    }
  }
  const std::size_t keep = std::max<std::size_t>(finished_per_state_, 1) - 1;
  finished.resize(finished.size() > keep ? finished.size() - keep : 0);
  return finished;
}

void JobTable::finish(JobTicket ticket, const store::JobRecord& record,
                      const std::vector<std::pair<JobId, std::string>>& dropped) {
  std::vector<std::function<void()>> callbacks;
  {
    const std::lock_guard lock(mutex_);
    Job* job = find(ticket);
    if (job == nullptr) return;
    job->phase = Phase::kFinished;
    job->record = record;
    job->record.prompt.clear();
    job->reply.reset();
    std::erase_if(states_[record.state], [&](const Job& other) {
      return std::ranges::find(dropped, other.id, &std::pair<JobId, std::string>::first) !=
             dropped.end();
    });
    callbacks = leave(ticket);
  }
  for (const auto& callback : callbacks) callback();
}

// --- removal of a state
// -----------------------------------------------------------------------------

std::vector<std::string> JobTable::close(StateId state) {
  std::vector<std::string> live;
  std::vector<std::string> announced;
  {
    const std::lock_guard lock(mutex_);
    closed_.insert(state);
    if (const auto jobs = states_.find(state); jobs != states_.end()) {
      for (const Job& job : jobs->second) {
        if (job.live()) live.push_back(job.record.name);
        if (job.phase == Phase::kAnnounced) announced.push_back(job.record.name);
      }
    }
  }
  for (const auto& name : announced) withdraw(state, name, std::nullopt);
  return live;
}

void JobTable::when_idle(StateId state, std::function<void()> done) {
  {
    const std::lock_guard lock(mutex_);
    const auto jobs = states_.find(state);
    if (jobs != states_.end() && std::ranges::any_of(jobs->second, &Job::live)) {
      idle_[state].push_back(std::move(done));
      return;
    }
  }
  done();
}

void JobTable::reopen(StateId state) {
  const std::lock_guard lock(mutex_);
  closed_.erase(state);
}

void JobTable::erase(StateId state) {
  const std::lock_guard lock(mutex_);
  closed_.erase(state);
  states_.erase(state);
}

}  // namespace kvfs::sched
