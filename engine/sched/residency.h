// Versions whose KV is on the device, by VersionId, the least recently used dropped first when
// pages run short. Others are brought there: what another one on the device holds already is shared
// with it, block by block; the rest is restored from the store, or read again where the planner
// finds that sooner and the bits are the same. A job runs on a fork, which shares pages.
//
// Engine thread only. Owns its sequences; the model, the planner and the store outlive it.
#pragma once

#include <chrono>
#include <list>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/model/model.h"
#include "engine/sched/history.h"
#include "engine/sched/kv_reader.h"
#include "engine/sched/planner.h"

namespace kvfs::sched {

using Deadline = std::chrono::steady_clock::time_point;

class Residency {
 public:
  struct Base {
    std::shared_ptr<const History> history;  // with the history cache and jobs
    // Reading its tokens again gives the bits that are stored: this model and kernel class computed
    // all of it from them, and read them all or knows no difference.
    bool recomputable = false;
  };
  struct Arrival {             // how a version came to the device, from the store's side
    std::uint64_t number = 0;  // 0: it grew there
    std::uint32_t restored_tokens = 0;
    std::uint32_t recomputed_tokens = 0;
  };

  Residency(model::Model& model, store::Store& store, Planner& planner, std::function<void()> wake)
      : model_(model), store_(store), planner_(planner), wake_(std::move(wake)) {}

  bool holds(VersionId id) const;
  // Makes a fork of the version possible, bringing it unless it is there or on its way.
  void want(const Base& base);
  // Null while it is on its way; the error when that failed.
  Result<std::unique_ptr<model::Sequence>> fork(const Base& base);
  Arrival arrival(VersionId id) const;
  std::uint64_t arrivals() const { return arrivals_; }
  bool reads(VersionId id) const;  // it is on its way, and being read
  void keep(VersionId id, std::unique_ptr<model::Sequence> sequence);
  bool evict_one();
  void drop(VersionId id);  // if it is there
  // Moves restores on until the deadline; true when anything moved.
  bool work(Deadline deadline);
  bool read_slice();  // of what is read again; false when there is none
  // The time since work() went to compute: restores that need this thread had none of it.
  void skip_time() { charge_time(true); }
  // Since the last call.
  std::uint64_t take_restored_tokens() { return std::exchange(restored_tokens_, 0); }
  std::uint64_t take_recomputed_tokens() { return std::exchange(recomputed_tokens_, 0); }

  // Calls verb, dropping one version after another while it says kTooLarge.
  template <class Verb>
  auto with_room(const Verb& verb) {
    auto result = verb();
    while (!result && result.error().code == ErrorCode::kTooLarge && evict_one()) result = verb();
    return result;
  }
  // Puts pieces in until there is none ready or the deadline has passed; true when anything moved.
  Result<bool> put_in(KvReader& reader, model::Sequence& sequence, Deadline deadline);

 private:
  using Clock = std::chrono::steady_clock;
  struct Resident {
    VersionId id;
    std::unique_ptr<model::Sequence> sequence;
    std::vector<BlockId> blocks;
    Arrival arrival;
  };
  struct Restore {
    Base base;
    std::unique_ptr<model::Sequence> sequence;  // null: waits for another that shares blocks
    Position read_to = 0;                       // up to here it is read
    std::vector<store::BlockRecord> blocks;     // behind that, to be restored
    std::unique_ptr<KvReader> reader;           // of these, once all is read
    bool goes_alone = false;                    // the reader puts them in itself
    std::uint64_t bytes = 0;
    Clock::duration took{};  // restoring
    Arrival arrival;

    VersionId id() const { return base.history->id; }
    bool reads() const { return sequence && !reader; }
  };
  using Restores = std::list<Restore>;  // who waits for a slice longest first

  std::pair<std::size_t, const Resident*> most_shared(const History& history) const;
  bool waits(const Restore& restore) const;
  Status begin(Restore& restore);
  void share(Restore& restore);
  Status plan(Restore& restore);
  Status restore_rest(Restore& restore);
  Result<bool> advance(Restore& restore, Deadline deadline);
  void arrive(Restore& restore);
  void charge_time(bool computing = false);
  Restores::const_iterator coming(VersionId id) const;

  model::Model& model_;
  store::Store& store_;
  Planner& planner_;
  std::function<void()> wake_;
  std::list<Resident> residents_;  // most recently used first
  Restores restores_;
  std::unordered_map<VersionId, Error> failures_;
  Clock::time_point charged_until_ = Clock::now();
  std::uint64_t arrivals_ = 0;
  std::uint64_t restored_tokens_ = 0, recomputed_tokens_ = 0;
};

}  // namespace kvfs::sched
