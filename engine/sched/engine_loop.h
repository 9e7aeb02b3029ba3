// The engine thread: it owns the models and every sequence, and turns jobs into tokens.
//
// One round: let jobs begin, admit those that fit, bring KV to the device, read one slice of one
// prompt, take one decode step with everything that generates, hand full blocks to the commit
// thread. A round without progress sleeps until something wakes it.
// Threads: wake, settled, counters and the loaded models' names from any thread.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <future>
#include <list>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "engine/sched/comparison.h"
#include "engine/sched/inflight.h"
#include "engine/sched/loaded_models.h"
#include "engine/sched/running_job.h"

namespace kvfs::sched {

class EngineLoop {
 public:
  struct Parts {  // all outlive the loop
    store::Store& store;
    Catalog& catalog;
    JobTable& table;
    Committer& committer;
    HistoryCache& histories;
    KnownTexts& known;
  };
  EngineLoop(Parts parts, const SchedulerOptions& options);
  ~EngineLoop() { stop(); }
  EngineLoop(const EngineLoop&) = delete;
  EngineLoop& operator=(const EngineLoop&) = delete;

  Status start();  // loads the default model
  void stop();     // leaves running jobs where they are

  void wake();
  void settled(std::optional<JobTicket> ended, VersionId version);  // Committer's hook

  // Takes it on; it ends by itself, or when its link is left. kAgain: too many are under way.
  Status compare(std::unique_ptr<ComparisonRun> run);

  Counters counters() const;  // but for the queue
  const LoadedModels& models() const { return models_; }

 private:
  using Jobs = std::list<std::unique_ptr<RunningJob>>;

  void run(std::promise<Status> loaded);
  bool round();
  bool keep_ended();
  void begin_jobs();
  // A job that found no room, in front of all later ones of its lane on its model.
  struct HeldBack {
    JobTable::Handed job;
    const model::ModelCard* awaited = nullptr;    // the model, where that is not to be had
    std::chrono::steady_clock::time_point since;  // awaited
  };
  bool admit(JobTable::Lane lane, bool again);
  enum class Admission { kIn, kLater };
  bool admit(HeldBack& waiting);
  Result<Admission> try_to_admit(HeldBack& waiting);
  Result<LoadedModel*> model_for(HeldBack& waiting, const model::ModelCard& card);
  const model::ModelCard* owed() const;
  bool fits(const RunningJob& job);
  bool obey_words();
  bool bring_in(Deadline deadline);
  Result<bool> bring_in(RunningJob& job, Deadline deadline);
  bool read_one();
  bool read_one(JobTable::Lane lane);
  bool read_again();
  Status read_slice(RunningJob& job);
  bool recompute_last();
  Status recompute_last(RunningJob& job);
  bool prune(bool refreshes_only);
  Status prune(RunningJob& job, const prune::Policy& policy);
  Status pruned(RunningJob& job, const Pruned& what);
  bool serve_others(const RunningJob& job);  // while a job reads again; false: it is to stop
  bool decode(LoadedModel& on);
  void decode_alone(RunningJob& job);
  bool go_ahead(LoadedModel& on, const std::vector<RunningJob*>& jobs);
  bool hear(LoadedModel& on);
  bool hand_over();
  Result<bool> hand_over(RunningJob& job);
  void end_unstarted(const JobTable::Handed& handed, const Error& error);
  void fail_job(RunningJob& job, const Error& error);
  Deadline transfer_deadline() const;
  void publish();
  bool compare();  // one step of one comparison
  bool step(ComparisonRun& run);
  void end_comparisons();

  Parts parts_;
  const SchedulerOptions options_;
  LoadedModels models_;

  // The engine thread's own.
  Jobs jobs_;                                       // the longest unserved first
  std::array<std::vector<HeldBack>, 2> held_back_;  // by lane, one a model
  bool room_changed_ = false;                       // since they were held back
  std::chrono::steady_clock::time_point last_load_;
  std::list<std::unique_ptr<ComparisonRun>> comparisons_;  // the longest unserved first
  std::size_t turn_ = 0;

  std::atomic<std::uint64_t> prefilled_{0}, decoded_{0}, restored_{0}, prefix_hits_{0},
      kv_bytes_{0};
  std::atomic<double> read_rate_{0}, restore_rate_{0};

  std::mutex mutex_;  // guards everything down to thread_
  std::condition_variable changed_;
  bool woken_ = false;
  bool stop_ = false;
  std::deque<std::pair<JobTicket, VersionId>> ended_;
  std::deque<std::unique_ptr<ComparisonRun>> to_compare_;  // not yet seen by the engine thread
  std::size_t comparing_ = 0;                              // these and comparisons_
  Inflight writes_;
  std::thread thread_;
};

}  // namespace kvfs::sched
