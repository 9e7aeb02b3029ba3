#include "engine/sched/scheduler.h"

#include <atomic>
#include <future>
#include <mutex>

#include "engine/sched/commit.h"
#include "engine/sched/comparison.h"
#include "engine/sched/engine_loop.h"
#include "engine/sched/history.h"
#include "engine/sched/inflight.h"
#include "engine/sched/job_table.h"
#include "engine/sched/logprobs.h"
#include "engine/sched/submission.h"
#include "engine/store/write_transaction.h"

namespace kvfs::sched {
namespace {

// "what: why; what to do", as Error::message() made it.
Error parse_error(const std::string& text, ErrorCode code) {
  Error out{code, text, "", ""};
  const auto colon = text.find(": ");
  if (colon == std::string::npos) return out;
  out.what = text.substr(0, colon);
  out.why = text.substr(colon + 2);
  if (const auto semicolon = out.why.rfind("; "); semicolon != std::string::npos) {
    out.way_out = out.why.substr(semicolon + 2);
    out.why.resize(semicolon);
  }
  return out;
}

tl::unexpected<Error> stopping(const std::string& name) {
  return fail(ErrorCode::kInterrupted, "job " + name, "the daemon is stopping",
              "submit it again when the daemon is back");
}

}  // namespace

struct Scheduler::Impl {
  Impl(store::Store& its_store, Catalog& its_catalog, const SchedulerOptions& options)
      : store(its_store),
        catalog(its_catalog),
        table(options.queue_limit, options.finished_per_state),
        histories(its_store),
        known(its_store, options.share_prefixes),
        committer(its_store, table),
        engine({its_store, its_catalog, table, committer, histories, known}, options) {}

  store::Store& store;
  Catalog& catalog;
  JobTable table;
  HistoryCache histories;
  KnownTexts known;
  Committer committer;
  EngineLoop engine;
  Inflight calls;  // of the store, that will call back
  std::atomic<bool> imports_given_up = false;

  std::mutex listener_mutex;  // guards listener
  std::function<void(const Event&)> listener;
  std::mutex
      order_mutex;       // held from a job's place in the order to its row's in the writer's queue
  bool stopped = false;  // guarded by order_mutex

  std::mutex compare_mutex;  // guards what follows
  std::map<std::pair<StateId, std::string>, std::weak_ptr<ComparisonLink>> comparisons;
  std::uint64_t next_comparison = 1;

  void tell(const Event& event) {
    if (event.kind == Event::Kind::kAdvanced) known.changed(event.state);
    std::function<void(const Event&)> call;
    {
      const std::lock_guard lock(listener_mutex);
      call = listener;
    }
    if (call) call(event);
  }
  void refuse(const Submission& submission, const Error& why);
  void submit(const Submission& submission, std::function<void(Result<JobId>)> done);
  Status cancel(StateId state, const std::string& name, std::function<void()> done);
};

Scheduler::Scheduler(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Scheduler::~Scheduler() { stop(); }

Result<std::unique_ptr<Scheduler>> Scheduler::start(store::Store& store, Catalog& catalog,
                                                    const SchedulerOptions& options) {
  std::unique_ptr<Scheduler> out(new Scheduler(std::make_unique<Impl>(store, catalog, options)));
  Impl& impl = *out->impl_;
  KVFS_ASSIGN(auto rows, store.jobs());
  for (auto& [id, record] : rows) impl.table.restore(id, std::move(record));
  impl.committer.start(
      {.listener = [&impl](const Event& event) { impl.tell(event); },
       .settled = [&impl](std::optional<JobTicket> ended,
                          VersionId version) { impl.engine.settled(ended, version); }});
  KVFS_TRY(impl.engine.start());
  return out;
}

void Scheduler::set_listener(std::function<void(const Event&)> listener) {
  const std::lock_guard lock(impl_->listener_mutex);
  impl_->listener = std::move(listener);
}

// --- submitting
// -------------------------------------------------------------------------------------

Status Scheduler::check(const Submission& submission) {
  KVFS_TRY(impl_->table.room(submission.name));
  KVFS_TRY(examine(impl_->store, impl_->catalog, impl_->histories, impl_->known, submission,
                   impl_->table.busy(submission.state)));
  return {};
}

Result<JobId> Scheduler::submit(const Submission& submission) {
  std::promise<Result<JobId>> promise;
  auto result = promise.get_future();
  impl_->submit(submission, [&promise](Result<JobId> id) { promise.set_value(std::move(id)); });
  return result.get();
}

void Scheduler::submit_async(Submission submission, std::function<void(Result<JobId>)> done) {
  impl_->submit(submission, std::move(done));
}

void Scheduler::Impl::refuse(const Submission& submission, const Error& why) {
  if (submission.name.empty()) return;
  table.withdraw(submission.state, submission.name, why);
  tell({Event::Kind::kJob, submission.state, submission.name});
}

void Scheduler::Impl::submit(const Submission& submission,
                             std::function<void(Result<JobId>)> done) {
  struct Pending {
    store::JobRecord record;
    JobTable::Reservation place;
    JobId id;
  };
  const auto pending = std::make_shared<Pending>();  // with the two callbacks of the write
  const auto refused = [&](const Error& why) {
    refuse(submission, why);
    done(fail(why));
  };
  if (submission.kind == store::JobKind::kPrune) {
    if (const auto idle = table.require_idle(submission.state); !idle) return refused(idle.error());
  }
  auto record = examine(store, catalog, histories, known, submission, table.busy(submission.state));
  if (!record) return refused(record.error());
  pending->record = *std::move(record);

  std::unique_lock lock(order_mutex);
  if (stopped) {
    lock.unlock();
    return done(stopping(submission.name));
  }
  auto place = table.reserve(pending->record);
  if (!place) {
    lock.unlock();
    return refused(place.error());
  }
  pending->place = *std::move(place);
  pending->record.name = pending->place.name;
  calls.enter();
  store.write_async(
      [pending](store::WriteTransaction& tx) -> Status {
        auto& row = pending->record;
        if (pending->place.may_begin) {
          KVFS_ASSIGN(const auto state, tx.state(row.state));
          row.base = state.version;
          row.status = store::JobStatus::kRunning;
        }
        if (pending->place.replaces) {
          KVFS_TRY(if_there(tx.remove_job(*pending->place.replaces)));
          KVFS_TRY(remove_reply(tx, row.state, row.name));
        }
        KVFS_ASSIGN(pending->id, tx.add_job(row));
        return {};
      },
      [this, pending, done = std::move(done)](Status written) {
        if (written) {
          table.admit(pending->place.ticket, pending->id, pending->record);
          engine.wake();
          tell({Event::Kind::kJob, pending->record.state, pending->record.name});
          done(pending->id);
        } else {
          table.refuse(pending->place.ticket, written.error());
          done(fail(written.error()));
        }
        calls.leave();
      });
}

void Scheduler::announce(StateId state, store::JobKind kind, const std::string& name) {
  impl_->table.announce(state, kind, name);
}

void Scheduler::withdraw(StateId state, const std::string& name, std::optional<Error> why) {
  impl_->table.withdraw(state, name, why);
}

// --- canceling
// --------------------------------------------------------------------------------------

Status Scheduler::cancel(StateId state, const std::string& name) {
  // A promise that is dropped (the daemon stops) ends the wait too.
  auto promise = std::make_shared<std::promise<void>>();  // with the commit thread's callback
  auto committed = promise->get_future();
  KVFS_TRY(impl_->cancel(state, name, [promise] { promise->set_value(); }));
  promise.reset();
  committed.wait();
  return {};
}

Status Scheduler::Impl::cancel(StateId state, const std::string& name, std::function<void()> done) {
  KVFS_ASSIGN(auto canceled, table.cancel(state, name));
  auto& [when, handed] = canceled;
  engine.wake();
  if (when == JobTable::Cancel::kSoon) {
    done();
    return {};
  }
  const Error why{ErrorCode::kCanceled, "job " + name, "it was canceled before it began", ""};
  Committer::End end{.job = handed.ticket, .id = handed.id, .record = handed.record};
  end.reply = handed.reply;
  end.record.status = store::JobStatus::kCanceled;
  end.record.finish = "canceled";
  end.record.error = why.message();
  end.error = why;
  end.done = std::move(done);
  committer.end(std::move(end));
  return {};
}

void Scheduler::forget(StateId state, std::function<void()> done) {
  Impl& impl = *impl_;
  for (const auto& name : impl.table.close(state)) {
    (void)impl.cancel(state, name, [] {});  // it may have ended by itself
  }
  impl.table.when_idle(state, [&impl, done = std::move(done)] {
    impl.calls.enter();  // until settle()
    done();
  });
}

void Scheduler::settle(StateId state) {
  if (impl_->store.state(state)) {
    impl_->table.reopen(state);
  } else {
    impl_->table.erase(state);
  }
  impl_->calls.leave();
}

// --- looking
// ----------------------------------------------------------------------------------------

Result<std::shared_ptr<Reply>> Scheduler::reply(StateId state, const std::string& name) {
  if (auto live = impl_->table.live_reply(state, name)) return live;
  const auto job = impl_->table.find(state, name);
  if (!job) {
    return fail(ErrorCode::kNotFound, "reply " + name, "the state has no such job",
                "its jobs are listed in status");
  }
  auto out = std::make_shared<Reply>();  // with the reader
  auto file = impl_->store.file(state, store::FileArea::kReply, name);
  if (file) {
    std::vector<model::Logprobs> logprobs;
    if (const auto kept = impl_->store.file(state, store::FileArea::kLogprobs, name)) {
      KVFS_ASSIGN(logprobs, decode_logprobs(kept->content));
    }
    out->append(file->content, std::move(logprobs));
    out->finish();
    return out;
  }
  if (file.error().code != ErrorCode::kNotFound) return fail(file.error());
  const bool canceled = job->record.status == store::JobStatus::kCanceled;
  out->finish(parse_error(job->record.error, canceled ? ErrorCode::kCanceled : ErrorCode::kIo));
  return out;
}

std::vector<std::string> Scheduler::reply_names(StateId state) {
  std::vector<std::string> out;
  for (const auto& job : impl_->table.views(state)) out.push_back(job.record.name);
  return out;
}

std::vector<JobView> Scheduler::jobs(StateId state) { return impl_->table.views(state); }

std::string Scheduler::status_text(StateId state) {
  std::string out;
  for (const auto& job : impl_->table.views(state)) out += status_lines(job);
  return out;
}

std::vector<Refresh> Scheduler::refreshes(StateId state, const std::string& name,
                                          std::uint64_t& told) {
  return impl_->table.refreshes(state, name, told);
}

std::uint64_t Scheduler::watch(std::function<void(const Refreshed&)> watcher) {
  return impl_->table.watchers().add(std::move(watcher));
}
void Scheduler::unwatch(std::uint64_t watch) { impl_->table.watchers().remove(watch); }

void Scheduler::advanced(StateId state) { impl_->tell({Event::Kind::kAdvanced, state, {}}); }

bool Scheduler::busy(StateId state) { return impl_->table.busy(state); }

Counters Scheduler::counters() const {
  Counters out = impl_->engine.counters();
  std::tie(out.queued, out.running) = impl_->table.queued_and_running();
  return out;
}

std::string Scheduler::device() const { return impl_->engine.models().device(); }
std::vector<std::string> Scheduler::loaded_models() const { return impl_->engine.models().names(); }
std::optional<Loading> Scheduler::loading() const { return impl_->engine.models().loading(); }

void Scheduler::give_up_imports() { impl_->imports_given_up = true; }
bool Scheduler::imports_given_up() const { return impl_->imports_given_up; }

// --- comparing
// ----------------------------------------------------------------------------------------

Result<Scheduler::Comparison> Scheduler::compare(const ComparisonRequest& request,
                                                 ComparisonLink::Tell tell) {
  KVFS_ASSIGN(ComparisonSetup setup, examine_comparison(impl_->store, impl_->catalog,
                                                        impl_->histories, impl_->known, request));
  // With who asks, and the engine's run.
  Comparison out{{}, std::make_shared<ComparisonLink>(std::move(tell), [impl = impl_.get()] {
                   impl->engine.wake();
                 })};
  KVFS_TRY(impl_->engine.compare(
      std::make_unique<ComparisonRun>(std::move(setup), out.link, impl_->known)));
  const std::lock_guard lock(impl_->compare_mutex);
  out.name = "compare-" + std::to_string(impl_->next_comparison++);
  std::erase_if(impl_->comparisons, [](const auto& entry) { return entry.second.expired(); });
  impl_->comparisons[{request.state, out.name}] = out.link;
  return out;
}

Result<std::shared_ptr<ComparisonLink>> Scheduler::comparison(StateId state,
                                                              const std::string& name) {
  const std::lock_guard lock(impl_->compare_mutex);
  const auto found = impl_->comparisons.find({state, name});
  auto link = found == impl_->comparisons.end() ? nullptr : found->second.lock();
  if (link) return link;
  return fail(ErrorCode::kNotFound, "comparison " + name, "none of that name is under way",
              "begin one: it lives as long as its stream is read");
}

void Scheduler::stop() {
  Impl& impl = *impl_;
  {
    const std::lock_guard lock(impl.order_mutex);
    if (impl.stopped) return;
    impl.stopped = true;
  }
  impl.committer.stop();  // it may hold KV that the engine's models are copying out
  impl.engine.stop();
  impl.calls.wait();
  for (const auto& reply : impl.table.unfinished_replies()) {
    reply->finish(Error{ErrorCode::kInterrupted, "reply", "the daemon is stopping",
                        "read it again when the daemon is back: its job will start again"});
  }
}

}  // namespace kvfs::sched
