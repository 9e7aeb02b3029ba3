// All jobs the daemon knows: announced, queued, running, finished. One lock guards them; every
// method may be called from any thread and returns copies. Replies are finished and callbacks
// called outside the lock.
//
// A job's way: reserve (a place in the order) → admit (its row is on disk) → begin (its base
// version is fixed, on disk) → take (by the engine) → finish (its end is on disk). Jobs on one
// state keep the order of reserve: see free_to_begin in the source.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "engine/sched/reply.h"
#include "engine/sched/scheduler.h"
#include "engine/store/watchers.h"

namespace kvfs::sched {

using JobTicket = NumberId<struct JobTicketTag>;  // this process's name for a job; grows with order

inline bool changes_state(store::JobKind kind) { return kind != store::JobKind::kAsk; }
inline bool is_finished(store::JobStatus status) { return status >= store::JobStatus::kDone; }

class JobTable {
 public:
  JobTable(std::size_t queue_limit, std::size_t finished_per_state)
      : queue_limit_(queue_limit), finished_per_state_(finished_per_state) {}

  struct Reservation {
    JobTicket ticket;
    std::string name;               // chosen where none was given
    bool may_begin = false;         // nothing before it is in its way: fix its base with its row
    std::optional<JobId> replaces;  // a finished job of that name
  };
  struct Handed {  // a job as the engine gets it
    JobTicket ticket;
    JobId id;
    store::JobRecord record;
    std::shared_ptr<Reply> reply;  // shared with readers
  };
  struct Progress {
    std::uint32_t read_tokens = 0, prompt_tokens = 0, known_tokens = 0, prefilled_tokens = 0;
    std::uint32_t restored_tokens = 0, recomputed_tokens = 0;
    std::uint32_t generated_tokens = 0;
    store::JobTimes times;
    double tokens_per_second = 0;
    bool reading = false;
    bool started = false;  // taken, and there was room for it
  };
  static constexpr std::size_t kRefreshesKept = 64;  // a job, the last ones
  // Who only reads never stands in the way of who wants an answer.
  enum class Lane { kAnswers, kFeeds };
  static Lane lane_of(store::JobKind kind) {
    return kind == store::JobKind::kFeed ? Lane::kFeeds : Lane::kAnswers;
  }
  enum class Cancel { kNow, kSoon };  // kNow: it never ran, and the caller commits its end

  // kBusy: what is to be done to the state waits for no job, and there are some.
  Status require_idle(StateId state) const;

  // --- coming in --------------------------------------------------------------------------------
  void restore(JobId id, store::JobRecord record);  // at start, in ascending order of id
  Result<Reservation> reserve(const store::JobRecord& record);
  Status room(const std::string& name) const;  // kAgain: the queue is full
  void admit(JobTicket ticket, JobId id, const store::JobRecord& record);
  void refuse(JobTicket ticket, const Error& why);  // its row could not be written
  void announce(StateId state, store::JobKind kind, const std::string& name);
  void withdraw(StateId state, const std::string& name, const std::optional<Error>& why);

  // --- running ----------------------------------------------------------------------------------
  std::vector<std::pair<JobTicket, JobId>> to_begin();  // each once; the caller fixes their bases
  void begun(JobTicket ticket, VersionId base);
  // The eldest that has begun and suits the engine.
  std::optional<Handed> take(Lane lane, const std::function<bool(const store::JobRecord&)>& suits);
  bool cancel_wanted(JobTicket ticket) const;
  void progress(JobTicket ticket, const Progress& progress);
  void refreshed(JobTicket ticket, Refresh refresh);
  Result<std::pair<Cancel, Handed>> cancel(StateId state, const std::string& name);
  // Finished jobs that a state has too many of, once one more finishes.
  std::vector<std::pair<JobId, std::string>> surplus(StateId state) const;
  void finish(JobTicket ticket, const store::JobRecord& record,
              const std::vector<std::pair<JobId, std::string>>& dropped);

  // Of a job whose base could not be fixed: the caller commits its end.
  std::optional<Handed> give_up(JobTicket ticket);

  // --- removal of a state
  // -------------------------------------------------------------------------
  std::vector<std::string> close(StateId state);  // no new jobs; names of those that are unfinished
  void when_idle(StateId state, std::function<void()> done);  // called at once, or from finish
  void reopen(StateId state);                                 // it stays after all
  void erase(StateId state);                                  // it is gone

  // --- looking ----------------------------------------------------------------------------------
  std::shared_ptr<Reply> live_reply(StateId state, const std::string& name) const;
  std::optional<JobView> find(StateId state, const std::string& name) const;
  std::vector<JobView> views(StateId state) const;  // newest first
  std::vector<Refresh> refreshes(StateId state, const std::string& name, std::uint64_t& told) const;
  store::Watchers<Refreshed>& watchers() { return watchers_; }
  bool busy(StateId state) const;
  std::pair<std::uint64_t, std::uint64_t> queued_and_running() const;
  std::vector<std::shared_ptr<Reply>> unfinished_replies() const;

 private:
  enum class Phase { kAnnounced, kReserved, kWaiting, kBeginning, kReady, kTaken, kFinished };
  struct Job {
    JobTicket ticket;
    JobId id;
    Phase phase = Phase::kAnnounced;
    store::JobRecord record;  // without its prompt once finished
    Progress now;
    std::vector<Refresh> refreshes;  // oldest first
    std::uint64_t refreshed = 0;     // how many there were
    std::shared_ptr<Reply> reply;    // shared with readers; null once it can be read from the store
    bool bound = false;              // its base is fixed, or will be by a write under way
    bool cancel = false;
    bool refused = false;  // finished without ever having been on disk

    bool live() const { return phase != Phase::kAnnounced && phase != Phase::kFinished; }
  };
  using Jobs = std::vector<Job>;  // of one state, in order

  Status check_idle(StateId state) const;
  const Job* look(JobTicket ticket) const;  // of live ones
  Job* find(JobTicket ticket) { return const_cast<Job*>(look(ticket)); }
  const Job* latest(StateId state, const std::string& name) const;
  Status has_room(const std::string& name) const;  // with the lock held
  static std::vector<Job*> free_to_begin(Jobs& jobs);
  static JobView view_of(const Job& job);
  static Handed handed(const Job& job);
  std::set<JobTicket>& ready(const Job& job);
  void trim_refused(Jobs& jobs) const;
  Job& add(StateId state, Phase phase);
  std::vector<std::function<void()>> leave(JobTicket ticket);  // it is live no more

  const std::size_t queue_limit_;
  const std::size_t finished_per_state_;
  store::Watchers<Refreshed> watchers_;

  mutable std::mutex mutex_;  // guards everything below
  std::unordered_map<StateId, Jobs> states_;
  std::map<JobTicket, StateId> live_;
  std::array<std::set<JobTicket>, 2> ready_;  // by lane
  std::unordered_set<StateId> moved_;         // states where a job may have become free to begin
  std::unordered_set<StateId> closed_;
  std::unordered_map<StateId, std::vector<std::function<void()>>> idle_;
  std::uint64_t next_ticket_ = 1;
  std::uint64_t next_name_ = 1;
};

}  // namespace kvfs::sched
