// How the job table looks from outside.
#include <algorithm>

#include "engine/sched/job_table.h"

namespace kvfs::sched {

JobView JobTable::view_of(const Job& job) {
  JobView view{.id = job.id, .record = job.record, .refreshes = job.refreshes};
  if (job.record.kind != store::JobKind::kPrune) view.record.prompt.clear();
  if (job.phase == Phase::kFinished) return view;
  view.record.status = job.now.started ? store::JobStatus::kRunning : store::JobStatus::kQueued;
  view.record.prompt_tokens = job.now.prompt_tokens;
  view.record.generated_tokens = job.now.generated_tokens;
  view.record.known_tokens = job.now.known_tokens;
  view.record.prefilled_tokens = job.now.prefilled_tokens;
  view.record.restored_tokens = job.now.restored_tokens;
  view.record.recomputed_tokens = job.now.recomputed_tokens;
  view.record.times = job.now.times;
  view.read_tokens = job.now.read_tokens;
  view.tokens_per_second = job.now.tokens_per_second;
  view.reading = job.now.reading;
  return view;
}

// ----------------------------------------------------------------------------------------

std::shared_ptr<Reply> JobTable::live_reply(StateId state, const std::string& name) const {
  const std::lock_guard lock(mutex_);
  const Job* job = latest(state, name);
  return job == nullptr ? nullptr : job->reply;
}

std::optional<JobView> JobTable::find(StateId state, const std::string& name) const {
  const std::lock_guard lock(mutex_);
  const Job* job = latest(state, name);
  if (job == nullptr) return std::nullopt;
  return view_of(*job);
}

std::vector<JobView> JobTable::views(StateId state) const {
  const std::lock_guard lock(mutex_);
  std::vector<JobView> out;
  const auto jobs = states_.find(state);
  if (jobs == states_.end()) return out;
  for (auto it = jobs->second.rbegin(); it != jobs->second.rend(); ++it) {
    // A job that is about to replace a finished one hides it.
    if (latest(state, it->record.name) == &*it) out.push_back(view_of(*it));
  }
  return out;
}

std::vector<Refresh> JobTable::refreshes(StateId state, const std::string& name,
                                         std::uint64_t& told) const {
  const std::lock_guard lock(mutex_);
  const Job* job = latest(state, name);
  if (job == nullptr || job->refreshed <= told) return {};
  const auto fresh = std::min<std::uint64_t>(job->refreshed - told, job->refreshes.size());
  told = job->refreshed;
  return {job->refreshes.end() - static_cast<std::ptrdiff_t>(fresh), job->refreshes.end()};
}

bool JobTable::busy(StateId state) const {
  const std::lock_guard lock(mutex_);
  const auto jobs = states_.find(state);
  return jobs != states_.end() && std::ranges::any_of(jobs->second, [](const Job& job) {
           return job.live() && changes_state(job.record.kind);
         });
}

std::pair<std::uint64_t, std::uint64_t> JobTable::queued_and_running() const {
  const std::lock_guard lock(mutex_);
  std::uint64_t running = 0;
  for (const auto& [ticket, state] : live_) {
    const Job* job = look(ticket);
    if (job->now.started) ++running;
  }
  return {live_.size() - running, running};
}

std::vector<std::shared_ptr<Reply>> JobTable::unfinished_replies() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<Reply>> out;
  for (const auto& [state, jobs] : states_) {
    for (const Job& job : jobs) {
      if (job.phase != Phase::kFinished) out.push_back(job.reply);
    }
  }
  return out;
}

}  // namespace kvfs::sched
