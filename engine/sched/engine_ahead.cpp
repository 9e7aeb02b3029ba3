// Decode steps that the device is given ahead of what the jobs have heard, where it draws the
// tokens itself: it never waits for the host. Steps in vain (a reply that ended meanwhile) are
// dropped.
#include <algorithm>
#include <utility>

#include "engine/sched/engine_loop.h"

namespace kvfs::sched {

bool EngineLoop::go_ahead(LoadedModel& on, const std::vector<RunningJob*>& jobs) {
  while (std::cmp_less(on.steps.size(), on.model->most_ahead())) {
    std::vector<RunningJob*> these;
    std::vector<model::AheadItem> items;
    for (RunningJob* job : jobs) {
      if (job->steps_to_launch() <= 0) continue;
      these.push_back(job);
      items.push_back(job->next_step());
    }
    if (items.empty()) break;
    if (!on.residency.with_room([&] { return on.model->launch(items); })) {
      if (hear(on)) return true;
      // One of them may be the culprit: each for itself.
      for (RunningJob* job : these) decode_alone(*job);
      return true;
    }
    auto& step = on.steps.emplace_back();
    for (RunningJob* job : these) {
      job->launched();
      step.push_back(job->ticket());
    }
  }
  return hear(on);
}

// The eldest step; what it drew for jobs that have ended is nobody's.
bool EngineLoop::hear(LoadedModel& on) {
  if (on.steps.empty()) return false;
  const auto tokens = on.model->hear();
  const std::vector<JobTicket> step = std::move(on.steps.front());
  on.steps.pop_front();
  if (!tokens) on.steps.clear();
  for (const auto& job : jobs_) {
    if (&job->on() != &on || job->stage() != RunningJob::Stage::kGenerating) continue;
    if (!tokens) {
      if (job->ahead()) fail_job(*job, tokens.error());
      continue;
    }
    const auto at = std::ranges::find(step, job->ticket());
    if (at == step.end()) continue;
    ++decoded_;
    const Status heard = job->heard((*tokens)[static_cast<std::size_t>(at - step.begin())]);
    if (!heard) fail_job(*job, heard.error());
  }
  return true;
}

}  // namespace kvfs::sched
