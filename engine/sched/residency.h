// Versions whose KV is on the device, by VersionId, the least recently used dropped first when
// pages run short; others are brought back from the store. A job runs on a fork, which shares
// pages.
//
// Engine thread only. Owns its sequences; the model and the store outlive it.
#pragma once

#include <chrono>
#include <list>
#include <memory>
#include <unordered_map>

#include "engine/model/model.h"
#include "engine/sched/history.h"
#include "engine/sched/kv_reader.h"

namespace kvfs::sched {

using Deadline = std::chrono::steady_clock::time_point;

class Residency {
 public:
  Residency(model::Model& model, store::Store& store, std::function<void()> wake)
      : model_(model), store_(store), wake_(std::move(wake)) {}

  bool holds(VersionId id) const;
  // Makes a fork of the version possible, restoring it unless it is there or on its way.
  void want(const History& history);
  // Null while it is being restored; the error when that failed.
  Result<std::unique_ptr<model::Sequence>> fork(const History& history);
  void keep(VersionId id, std::unique_ptr<model::Sequence> sequence);
  bool evict_one();
  // Moves restores on until the deadline; true when anything moved.
  bool work(Deadline deadline);
  std::uint64_t take_restored_tokens();  // since the last call

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
  struct Resident {
    VersionId id;
    std::unique_ptr<model::Sequence> sequence;
  };
  struct Restore {
    std::unique_ptr<model::Sequence> sequence;
    std::unique_ptr<KvReader> reader;
    Position next_pos = 0;
    std::uint64_t tokens = 0;
  };
  Result<Restore> begin(const History& history);
  Result<bool> advance(Restore& restore, Deadline deadline);

  model::Model& model_;
  store::Store& store_;
  std::function<void()> wake_;
  std::list<Resident> residents_;  // most recently used first
  std::unordered_map<VersionId, Restore> restores_;
  std::unordered_map<VersionId, Error> failures_;
  std::uint64_t restored_tokens_ = 0;
};

}  // namespace kvfs::sched
