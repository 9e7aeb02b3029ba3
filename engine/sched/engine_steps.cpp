// What one round of the engine thread does on the device: KV in and out, slices, decode steps.
#include <algorithm>
#include <chrono>
#include <utility>

#include "engine/sched/engine_loop.h"

namespace kvfs::sched {
namespace {

using Stage = RunningJob::Stage;

}  // namespace

// --- KV to and from the device
// ----------------------------------------------------------------------

bool EngineLoop::bring_in(Deadline deadline) {
  bool progress = false;
  for (const auto& on : models_.all()) {
    progress |= on->residency.work(deadline);
    restored_ += on->residency.take_restored_tokens();
  }
  for (const auto& job : jobs_) {
    const auto moved = bring_in(*job, deadline);
    if (!moved) fail_job(*job, moved.error());
    progress |= !moved || *moved;
  }
  return progress;
}

Result<bool> EngineLoop::bring_in(RunningJob& job, Deadline deadline) {
  auto& residency = job.on().residency;
  bool moved = false;
  if (job.stage() == Stage::kRestoring) {
    KVFS_ASSIGN(auto sequence, residency.fork(job.base()));
    job.waits(residency.reads(job.base().history->id));
    if (!sequence) return false;
    job.start(std::move(sequence));
    moved = true;
  }
  if (job.stage() == Stage::kReading) {
    KVFS_ASSIGN(const auto known, job.find_known([this] { wake(); }));
    prefix_hits_ += known;
    moved |= known > 0;
  }
  if (job.stage() == Stage::kTaking) {
    KVFS_ASSIGN(const bool put, residency.put_in(job.reader(), job.sequence(), deadline));
    moved |= put;
    if (job.reader().done()) KVFS_TRY(job.taken());
  }
  return moved;
}

bool EngineLoop::hand_over() {
  bool progress = false;
  for (const auto& job : jobs_) {
    if (job->stage() == Stage::kEnding) continue;
    const auto handed = hand_over(*job);
    if (!handed) fail_job(*job, handed.error());
    progress |= !handed || *handed;
  }
  return progress;
}

Result<bool> EngineLoop::hand_over(RunningJob& job) {
  bool progress = false;
  while (job.changes() && parts_.committer.has_room()) {
    KVFS_ASSIGN(auto block, job.next_block());
    if (!block) break;
    parts_.committer.add(*std::move(block));
    progress = true;
  }
  if (job.drained()) {
    parts_.committer.end(job.end(std::nullopt));
    progress = true;
  }
  return progress;
}

// --- compute
// ----------------------------------------------------------------------------------------

// One slice for who has waited longest; answers, feeds and bases that are read again take turns.
bool EngineLoop::read_one() {
  constexpr std::size_t kTurns = 3;
  for (std::size_t i = 0; i < kTurns; ++i) {
    const std::size_t turn = (turn_ + i) % kTurns;
    if (turn == 2 ? read_again() : read_one(static_cast<JobTable::Lane>(turn))) {
      ++turn_;
      return true;
    }
  }
  return false;
}

bool EngineLoop::read_one(JobTable::Lane lane) {
  const auto it = std::ranges::find_if(jobs_, [&](const auto& job) {
    return job->stage() == Stage::kReading && job->lane() == lane;
  });
  if (it == jobs_.end()) return false;
  RunningJob& job = **it;
  jobs_.splice(jobs_.end(), jobs_, it);
  if (const auto read = read_slice(job); !read) fail_job(job, read.error());
  return true;
}

bool EngineLoop::read_again() {
  for (const auto& on : models_.all()) {
    if (!on->residency.read_slice()) continue;
    prefilled_ += on->residency.take_recomputed_tokens();
    return true;
  }
  return false;
}

Status EngineLoop::read_slice(RunningJob& job) {
  auto& model = *job.on().model;
  const bool alone = jobs_.size() == 1;
  const auto tokens = job.slice(alone ? model.prefill_alone() : model.prefill_slice());
  const auto logits = job.logits_for(tokens.size());
  const Position first = job.sequence().next_pos();
  const auto begin = std::chrono::steady_clock::now();
  KVFS_TRY(
      job.on().residency.with_room([&] { return model.prefill(job.sequence(), tokens, logits); }));
  job.on().planner.read(first, tokens.size(), std::chrono::steady_clock::now() - begin);
  prefilled_ += tokens.size();
  job.slice_read(tokens.size());
  return {};
}

bool EngineLoop::recompute_last() {
  bool progress = false;
  for (const auto& job : jobs_) {
    if (job->stage() != Stage::kLast) continue;
    if (const auto done = recompute_last(*job); !done) fail_job(*job, done.error());
    progress = true;
  }
  return progress;
}

// By the path it took when it was computed first: so its KV has the same bits again.
Status EngineLoop::recompute_last(RunningJob& job) {
  auto& model = *job.on().model;
  const auto last = job.last();
  KVFS_TRY(job.drop_last());
  prune::Observation* const look = job.look();
  KVFS_TRY(job.on().residency.with_room([&]() -> Status {
    if (last.path == TokenPath::kRead) {
      return model.prefill(job.sequence(), {&last.token, 1}, job.logits());
    }
    model::DecodeItem item{&job.sequence(), last.token, job.logits(), look};
    return model.decode({&item, 1});
  }));
  job.sample_next();
  return {};
}

bool EngineLoop::prune(bool refreshes_only) {
  bool progress = false;
  for (const auto& job : jobs_) {
    if (refreshes_only && job->prunes()) continue;
    const prune::Policy* policy = job->policy_now();
    if (policy == nullptr) continue;
    if (const auto done = prune(*job, *policy); !done) fail_job(*job, done.error());
    progress = true;
  }
  return progress;
}

Status EngineLoop::prune(RunningJob& job, const prune::Policy& policy) {
  if (const auto seen = job.take_seen()) {
    KVFS_ASSIGN(const Pruned what, prune_sequence(job.on(), job.sequence(), policy, *seen));
    return pruned(job, what);
  }
  KVFS_ASSIGN(prune::Plan plan, job.plan_now());
  bool stopped = false;
  std::function<bool(std::int64_t)> go_on;  // a refresh reads next to nothing
  if (job.prunes()) {
    go_on = [&](std::int64_t tokens) {
      job.read_again(tokens);
      stopped = !serve_others(job);
      return !stopped;
    };
  }
  const auto what = prune_sequence(job.on(), job.sequence(), policy, std::move(plan), go_on);
  if (stopped) return {};  // the next round obeys the word
  if (!what) return fail(what.error());
  return pruned(job, *what);
}

Status EngineLoop::pruned(RunningJob& job, const Pruned& what) {
  // What the state was is not what it will be: the memory is to be free, not kept for it.
  if (what.changed && job.changes()) job.on().residency.drop(job.base().history->id);
  return job.pruned(what);
}

// Answers go on between the slices of what a method reads again.
bool EngineLoop::serve_others(const RunningJob& job) {
  {
    const std::lock_guard lock(mutex_);
    if (stop_) return false;
  }
  begin_jobs();
  admit(JobTable::Lane::kAnswers, false);
  bring_in(transfer_deadline());
  recompute_last();
  read_one(JobTable::Lane::kAnswers);
  prune(true);
  for (const auto& on : models_.all()) decode(*on);
  hand_over();
  publish();
  return !parts_.table.cancel_wanted(job.ticket());
}

bool EngineLoop::decode(LoadedModel& on) {
  std::vector<RunningJob*> jobs;
  for (const auto& job : jobs_) {
    if (&job->on() != &on || job->stage() != Stage::kGenerating) continue;
    if (std::cmp_greater_equal(jobs.size(), on.model->max_batch())) break;
    jobs.push_back(job.get());
  }
  if (jobs.empty()) return false;
  const bool ahead = on.model->most_ahead() > 0 &&
                     std::ranges::all_of(jobs, [](auto* job) { return job->draws_ahead(); });
  if (ahead) return go_ahead(on, jobs);
  if (hear(on)) return true;
  std::vector<model::DecodeItem> items;
  std::vector<Position> before;
  for (RunningJob* job : jobs) {
    items.push_back({&job->sequence(), job->pending(), job->logits(), job->look()});
    before.push_back(job->sequence().next_pos());
  }
  if (on.model->decode(items)) {
    decoded_ += items.size();
    for (RunningJob* job : jobs) job->decoded();
    return true;
  }
  // One of them may be the culprit: each for itself, those that the failed step left untouched.
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    if (jobs[i]->sequence().next_pos() == before[i]) {
      decode_alone(*jobs[i]);
    } else {
      fail_job(*jobs[i], {ErrorCode::kIo, "decode step", "the device failed half way",
                          "submit the job again"});
    }
  }
  return true;
}

void EngineLoop::decode_alone(RunningJob& job) {
  model::DecodeItem item{&job.sequence(), job.pending(), job.logits(), job.look()};
  const auto status = job.on().residency.with_room([&] {
    return job.on().model->decode({&item, 1});
  });
  if (!status) return fail_job(job, status.error());
  ++decoded_;
  job.decoded();
}

}  // namespace kvfs::sched
