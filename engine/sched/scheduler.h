// The scheduler: jobs in, text and new versions out.
//
// Threads: every public method may be called from any thread and never waits for the model; submit
// and cancel wait for one commit of the store (use the async forms where that is too long). Inside:
// one engine thread owns the model and its sequences; one commit thread encodes, commits, calls the
// listener and then publishes `done`, in this order, so that who reads `done` finds the new files.
//
// Order: jobs on one state start in the order of submission; an ask may run beside other asks, and
// a job that changes a state waits until those submitted before it have begun and earlier changes
// are committed. Jobs on any states share decode steps. Reading goes in slices between decode
// steps.
//
// Durability: submit returns when the job's row is on disk. Jobs left queued or running by a crash
// start again, once, on the version they had begun on, with the same seed.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/sched/catalog.h"
#include "engine/sched/params.h"
#include "engine/sched/planner.h"
#include "engine/sched/reply.h"
#include "engine/store/store.h"

namespace kvfs::sched {

struct SchedulerOptions {
  int threads = 0;              // CPU threads of the model; 0: one a physical core
  std::uint64_t kv_budget = 0;  // bytes of KV of a model; 0: what the memory leaves
  // Bytes of weights and KV of all loaded models; 0: four fifths of the machine's (or its control
  // group's), on a GPU what the driver gives. The least recently used idle model goes first.
  std::uint64_t memory = 0;
  // How long jobs on a loaded model may go before those that wait for another in its place.
  std::chrono::milliseconds model_patience{2000};
  std::size_t queue_limit = 4096;       // jobs; more are refused with kAgain
  std::size_t finished_per_state = 64;  // finished jobs (and replies) kept a state
  bool share_prefixes = false;          // across owners
  Planner rates;                        // before any is measured; empty: restores
  // How weights are loaded; empty: model::load_model. Tests of the scheduler give their own.
  std::function<Result<std::unique_ptr<model::Model>>(const model::ModelCard&,
                                                      const model::LoadOptions&)>
      load;
};

struct Submission {
  StateId state;
  store::JobKind kind = store::JobKind::kAsk;
  std::string name;        // of the job; "" : chosen ("step-17", "ask-18")
  std::string prompt;      // bytes; for kStep unused
  ParamMap overrides;      // for this job only, checked here
  std::int32_t steps = 0;  // kStep: tokens to generate
};

struct JobView {  // what status lines, HTTP and the command line show
  JobId id;
  store::JobRecord record;
  std::uint32_t read_tokens = 0;  // of record.prompt_tokens, while reading
  double tokens_per_second = 0;   // of generation
  bool reading = false;
};

// One line of a state's `status`: `q1 reading 512/2048 (256 known)`, …, as filesystem.md has them.
std::string status_line(const JobView& job);

struct Counters {
  std::uint64_t prefilled_tokens = 0, decoded_tokens = 0, restored_tokens = 0,
                prefix_hit_tokens = 0;
  std::uint64_t queued = 0, running = 0;
  // Measured on the model used last; 0: not yet.
  double prefill_tokens_per_second = 0, restore_bytes_per_second = 0;
};

struct Loading {  // a model whose weights are being read
  std::string name;
  int percent = 0;
};

struct Event {
  enum class Kind { kAdvanced, kJob } kind = Kind::kJob;
  StateId state;
  std::string job;  // kJob: name of the job whose status changed
};

class Scheduler {
 public:
  // Loads the default model (or fails with its error) and takes up the jobs left in the store.
  static Result<std::unique_ptr<Scheduler>> start(store::Store& store, Catalog& catalog,
                                                  const SchedulerOptions& options);
  ~Scheduler();  // stop()

  // Called on the commit thread after a commit and before `done` is published. Set once, before
  // use.
  void set_listener(std::function<void(const Event&)> listener);

  // --- jobs -------------------------------------------------------------------------------------
  // Everything that can be known before running: UTF-8, emptiness, length, parameters, model.
  Status check(const Submission& submission);
  Result<JobId> submit(const Submission& submission);
  void submit_async(Submission submission, std::function<void(Result<JobId>)> done);
  // Names a job that is about to be submitted, so that its reply can be opened and waited for.
  void announce(StateId state, store::JobKind kind, const std::string& name);
  // Takes an announcement back (the spooled file was removed, or refused: then its error is the
  // reply's).
  void withdraw(StateId state, const std::string& name, std::optional<Error> why);
  // By the job's name; kNotFound. A canceled continue keeps what it generated so far, committed.
  Status cancel(StateId state, const std::string& name);

  // The live or the persisted reply; kNotFound.
  Result<std::shared_ptr<Reply>> reply(StateId state, const std::string& name);
  std::vector<std::string> reply_names(StateId state);
  std::vector<JobView> jobs(StateId state);  // newest first, announced ones without an id
  std::string status_text(StateId state);    // status_line of each
  // The state has another version that is no job's doing: the listener hears of it, on this thread.
  void advanced(StateId state);
  bool busy(StateId state);                  // a job that would change it is queued or running

  // Before a state's removal: takes no more jobs on it, cancels those it has, and calls done when
  // none touches it (from this thread or the commit thread). settle() must follow: it looks whether
  // the state is still there, and takes jobs again or drops what is known of it.
  void forget(StateId state, std::function<void()> done);
  void settle(StateId state);

  Counters counters() const;
  std::string device() const;  // of the loaded model, "" while none is
  std::vector<std::string> loaded_models() const;
  std::optional<Loading> loading() const;

  // Running jobs stop after the step they are in; theirs and the queued ones' rows stay, to be
  // taken up at the next start. Open replies end with kInterrupted.
  void stop();

 private:
  struct Impl;
  explicit Scheduler(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace kvfs::sched
