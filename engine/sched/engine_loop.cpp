#include "engine/sched/engine_loop.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "codec/base/log.h"
#include "engine/sched/prompt.h"
#include "engine/store/write_transaction.h"

namespace kvfs::sched {
namespace {

using Stage = RunningJob::Stage;

// How long KV may be copied in while others wait for their next token.
constexpr auto kTransferSlice = std::chrono::milliseconds(10);

// Four fifths: the rest is for the daemon itself and the pages of the store's file.
std::uint64_t memory_budget(const Catalog& catalog, const SchedulerOptions& options) {
  return options.memory > 0 ? options.memory : model::memory_of(catalog.options().device) / 5 * 4;
}

std::string_view model_of(const store::JobRecord& record) {
  const auto it = record.params.find("model");
  return it == record.params.end() ? std::string_view() : std::string_view(it->second);
}

model::LoadOptions load_options(const Catalog& catalog, const SchedulerOptions& options) {
  model::LoadOptions out;
  out.device = catalog.options().device;
  out.compute = catalog.options().compute;
  out.threads = options.threads;
  out.kv_budget = options.kv_budget;
  return out;
}

}  // namespace

EngineLoop::EngineLoop(Parts parts, const SchedulerOptions& options)
    : parts_(parts),
      options_(options),
      models_(options.load ? options.load : LoadModel(model::load_model),
              load_options(parts.catalog, options),
              {.memory = memory_budget(parts.catalog, options),
               .several = parts.catalog.names().size() > 1},
              options.rates, parts.store, [this] { wake(); }) {}

// --- the thread
// -------------------------------------------------------------------------------------

Status EngineLoop::start() {
  std::promise<Status> promise;
  auto loaded = promise.get_future();
  thread_ =
      std::thread([this, loading = std::move(promise)]() mutable { run(std::move(loading)); });
  return loaded.get();
}

void EngineLoop::stop() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
  writes_.wait();
}

void EngineLoop::wake() {
  {
    const std::lock_guard lock(mutex_);
    woken_ = true;
  }
  changed_.notify_one();
}

void EngineLoop::settled(std::optional<JobTicket> ended, VersionId version) {
  if (ended) {
    const std::lock_guard lock(mutex_);
    ended_.emplace_back(*ended, version);
  }
  wake();
}

Counters EngineLoop::counters() const {
  Counters out;
  out.prefilled_tokens = prefilled_;
  out.decoded_tokens = decoded_;
  out.restored_tokens = restored_;
  out.prefix_hit_tokens = prefix_hits_;
  out.prefill_tokens_per_second = read_rate_;
  out.restore_bytes_per_second = restore_rate_;
  out.kv_bytes = kv_bytes_;
  return out;
}

void EngineLoop::run(std::promise<Status> loaded) {
  Status status;
  if (auto card = parts_.catalog.card(""); !card) {
    status = fail(card.error());
  } else if (auto model = models_.get(**card); !model) {
    status = fail(model.error());
  }
  loaded.set_value(status);
  bool progress = static_cast<bool>(status);
  while (true) {
    {
      std::unique_lock lock(mutex_);
      if (!progress) changed_.wait(lock, [this] { return woken_ || stop_; });
      woken_ = false;
      if (stop_) break;
    }
    progress = round();
  }
  end_comparisons();
  jobs_.clear();
  models_.clear();
}

bool EngineLoop::round() {
  bool progress = keep_ended();
  begin_jobs();
  const bool again = std::exchange(room_changed_, false);
  progress |= admit(JobTable::Lane::kAnswers, again);
  progress |= admit(JobTable::Lane::kFeeds, again);
  progress |= obey_words();
  progress |= bring_in(transfer_deadline());
  progress |= recompute_last();
  progress |= read_one();
  progress |= prune(false);
  for (const auto& on : models_.all()) progress |= decode(*on);
  progress |= hand_over();
  progress |= compare();
  publish();
  return progress;
}

void EngineLoop::publish() {
  for (const auto& job : jobs_) job->publish();
  std::uint64_t kv_bytes = 0;
  for (const auto& on : models_.all()) {
    on->residency.skip_time();
    kv_bytes += on->model->kv_bytes_used();
  }
  kv_bytes_ = kv_bytes;
  if (models_.all().empty()) return;
  const Planner& planner = models_.all().front()->planner;
  read_rate_ = planner.tokens_per_second();
  restore_rate_ = planner.bytes_per_second();
}

Deadline EngineLoop::transfer_deadline() const {
  const bool waited_for = std::ranges::any_of(
      jobs_, [](const auto& job) { return job->stage() == Stage::kGenerating; });
  return waited_for ? std::chrono::steady_clock::now() + kTransferSlice : Deadline::max();
}

// --- coming and going
// -------------------------------------------------------------------------------

bool EngineLoop::keep_ended() {
  std::deque<std::pair<JobTicket, VersionId>> ended;
  {
    const std::lock_guard lock(mutex_);
    ended.swap(ended_);
  }
  for (const auto& [ticket, version] : ended) {
    const auto it =
        std::ranges::find_if(jobs_, [&](const auto& job) { return job->ticket() == ticket; });
    if (it == jobs_.end()) continue;
    if (version) (*it)->on().residency.keep(version, (*it)->take_sequence());
    jobs_.erase(it);
    room_changed_ = true;
  }
  return !ended.empty();
}

// Fixes the base of jobs that were waiting for others on their state.
void EngineLoop::begin_jobs() {
  for (const auto& [ticket, id] : parts_.table.to_begin()) {
    auto base = std::make_shared<VersionId>();  // with the two callbacks
    writes_.enter();
    parts_.store.write_async(
        [id = id, base](store::WriteTransaction& tx) -> Status {
          KVFS_ASSIGN(auto record, tx.job(id));
          KVFS_ASSIGN(const auto state, tx.state(record.state));
          *base = record.base = state.version;
          record.status = store::JobStatus::kRunning;
          return tx.update_job(id, record);
        },
        [this, ticket = ticket, base](Status written) {
          if (written) {
            parts_.table.begun(ticket, *base);
          } else if (const auto handed = parts_.table.give_up(ticket)) {
            end_unstarted(*handed, written.error());
          }
          wake();
          writes_.leave();
        });
  }
}

void EngineLoop::end_unstarted(const JobTable::Handed& handed, const Error& error) {
  Committer::End end{.job = handed.ticket, .id = handed.id, .record = handed.record};
  end.reply = handed.reply;
  end.record.status =
      error.code == ErrorCode::kCanceled ? store::JobStatus::kCanceled : store::JobStatus::kFailed;
  end.record.error = error.message();
  end.error = error;
  parts_.committer.end(std::move(end));
}

void EngineLoop::fail_job(RunningJob& job, const Error& error) {
  parts_.committer.end(job.end(error));
}

// again: there may be room for those that were held back.
bool EngineLoop::admit(JobTable::Lane lane, bool again) {
  auto& held = held_back_[static_cast<std::size_t>(lane)];
  bool progress = false;
  for (auto it = held.begin(); it != held.end();) {
    if ((again || parts_.table.cancel_wanted(it->job.ticket)) && admit(*it)) {
      it = held.erase(it);
      room_changed_ = progress = true;  // others may have waited behind it
    } else {
      ++it;
    }
  }
  const auto suits = [&](const store::JobRecord& record) {
    return std::ranges::none_of(held, [&](const HeldBack& before) {
      return model_of(before.job.record) == model_of(record);
    });
  };
  while (auto job = parts_.table.take(lane, suits)) {
    HeldBack waiting{.job = *std::move(job)};
    if (admit(waiting)) {
      progress = true;
    } else {
      held.push_back(std::move(waiting));
    }
  }
  return progress;
}

// False: it has to wait.
bool EngineLoop::admit(HeldBack& waiting) {
  const auto admitted = try_to_admit(waiting);
  if (admitted && *admitted == Admission::kLater) return false;
  if (!admitted) end_unstarted(waiting.job, admitted.error());
  return true;
}

// The model that has been waited for the longest, once that is too long. One that was loaded may
// take jobs for as long before another gets its room.
const model::ModelCard* EngineLoop::owed() const {
  const HeldBack* eldest = nullptr;
  for (const auto& lane : held_back_) {
    for (const HeldBack& held : lane) {
      if (held.awaited != nullptr && (eldest == nullptr || held.since < eldest->since)) {
        eldest = &held;
      }
    }
  }
  if (eldest == nullptr) return nullptr;
  const auto begin = std::max(eldest->since, last_load_);
  const bool due = std::chrono::steady_clock::now() - begin >= options_.model_patience;
  return due ? eldest->awaited : nullptr;
}

// Null: the job waits for the model from now on.
Result<LoadedModel*> EngineLoop::model_for(HeldBack& waiting, const model::ModelCard& card) {
  const bool was_loaded = models_.holds(card);
  KVFS_ASSIGN(auto* on, models_.get(card, owed()));
  if (on == nullptr) {
    if (waiting.awaited == nullptr) waiting.since = std::chrono::steady_clock::now();
    waiting.awaited = &card;
    return nullptr;
  }
  waiting.awaited = nullptr;
  if (!was_loaded) {
    last_load_ = std::chrono::steady_clock::now();
    room_changed_ = true;  // for the other lane's jobs on it
  }
  return on;
}

Result<EngineLoop::Admission> EngineLoop::try_to_admit(HeldBack& waiting) {
  const JobTable::Handed& handed = waiting.job;
  const auto& record = handed.record;
  if (parts_.table.cancel_wanted(handed.ticket)) {
    return fail(ErrorCode::kCanceled, "job " + record.name, "it was canceled before it began");
  }
  RunningJob::Setup setup{.handed = handed};
  KVFS_ASSIGN(setup.params, resolve_params(record.params));
  KVFS_ASSIGN(setup.card, parts_.catalog.card(setup.params.model));
  KVFS_ASSIGN(auto* on, model_for(waiting, *setup.card));
  if (on == nullptr) return Admission::kLater;
  const auto lane =
      record.kind == store::JobKind::kFeed ? JobTable::Lane::kFeeds : JobTable::Lane::kAnswers;
  const auto beside = std::ranges::count_if(
      jobs_, [&](const auto& job) { return &job->on() == on && job->lane() == lane; });
  if (beside >= on->model->max_batch()) return Admission::kLater;

  KVFS_ASSIGN(setup.base, parts_.histories.get(record.base));
  KVFS_TRY(check_model(*setup.card, setup.params, *setup.base));
  KVFS_ASSIGN(const auto state, parts_.store.state(record.state));
  KVFS_ASSIGN(setup.prompt, prompt_tokens(*setup.card, setup.params, record.kind, *setup.base,
                                          record.prompt, parts_.known, state.uid));
  if (record.kind == store::JobKind::kPrune) {
    KVFS_ASSIGN(setup.params.prune, read_policy(record.prompt));
    KVFS_TRY(plan_pruning(*setup.params.prune, *setup.card, setup.params.mode, *setup.base));
  }
  if (setup.prompt.ids.empty() && setup.base->tokens.empty()) {
    return fail(ErrorCode::kInvalid, "job " + record.name, "the state is empty",
                "feed it, or continue it with some text, first");
  }
  setup.scope = parts_.known.scope(on->model->info(), state.uid);
  auto job = std::make_unique<RunningJob>(std::move(setup), *on, parts_.store, parts_.table);
  if (!fits(*job)) return Admission::kLater;
  on->residency.want(job->base());
  jobs_.push_back(std::move(job));
  return Admission::kIn;
}

// Whether the job's tokens to come find pages beside those of the jobs that run. Alone it may try.
bool EngineLoop::fits(const RunningJob& job) {
  LoadedModel& on = job.on();
  std::uint64_t need = job.bytes_to_come();
  bool alone = true;
  for (const auto& other : jobs_) {
    if (&other->on() != &on || other->stage() == Stage::kEnding) continue;
    need += other->bytes_to_come();
    alone = false;
  }
  const auto room = [&] { return on.model->kv_bytes_used() + need <= on.model->kv_bytes_budget(); };
  while (!room() && on.residency.evict_one()) {
  }
  return room() || alone;
}

// What the user (cancel) and the commit thread (a full disk) have said meanwhile.
bool EngineLoop::obey_words() {
  bool progress = false;
  for (const auto& job : jobs_) {
    if (job->stage() == Stage::kEnding) continue;
    if (const auto error = parts_.committer.failure(job->ticket())) {
      fail_job(*job, *error);
      progress = true;
    } else if (parts_.table.cancel_wanted(job->ticket())) {
      if (auto end = job->cancel()) {
        parts_.committer.end(*std::move(end));
        progress = true;
      }
    }
  }
  return progress;
}

}  // namespace kvfs::sched
