// Models whose weights are on the device, within a budget of memory: weights and KV of all of them
// together, known from their cards before anything is loaded. The least recently used one that no
// job runs on makes room for another; a model with jobs stays. Engine thread only, but for names(),
// loading() and device().
#pragma once

#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "engine/model/model.h"
#include "engine/sched/job_table.h"
#include "engine/sched/residency.h"
#include "engine/sched/scheduler.h"

namespace kvfs::sched {

using LoadModel = std::function<Result<std::unique_ptr<model::Model>>(const model::ModelCard&,
                                                                      const model::LoadOptions&)>;

struct LoadedModel {
  const model::ModelCard& card;
  std::unique_ptr<model::Model> model;
  Planner planner;  // what was measured on it
  Residency residency;
  int jobs = 0;                              // running on it
  std::deque<std::vector<JobTicket>> steps;  // launched and not heard: whose

  LoadedModel(const model::ModelCard& its_card, std::unique_ptr<model::Model> its_model,
              const Planner& assumed, store::Store& store, std::function<void()> wake)
      : card(its_card),
        model(std::move(its_model)),
        planner(assumed),
        residency(*model, store, planner, std::move(wake)) {}
  LoadedModel(const LoadedModel&) = delete;
  LoadedModel& operator=(const LoadedModel&) = delete;
  std::uint64_t token_bytes() const;  // of KV, all layers
  std::uint64_t memory() const;       // that it may take: weights and KV budget
};

class LoadedModels {
 public:
  struct Limits {
    std::uint64_t memory = 0;  // bytes; 0: as much as the device gives
    bool several = false;      // models are known: one leaves half of what is free to the next
  };
  LoadedModels(LoadModel load, model::LoadOptions options, Limits limits, const Planner& assumed,
               store::Store& store, std::function<void()> wake)
      : load_(std::move(load)),
        options_(std::move(options)),
        limits_(limits),
        assumed_(assumed),
        store_(store),
        wake_(std::move(wake)) {}

  // Loads it if need be. owed: the model that has been waited for too long (or null): others are
  // not to be had while they are in its way. Null: jobs on other models must end first. kTooLarge:
  // it is more than the budget, whatever else is unloaded.
  Result<LoadedModel*> get(const model::ModelCard& card, const model::ModelCard* owed = nullptr);
  std::list<std::unique_ptr<LoadedModel>>& all() { return loaded_; }
  bool holds(const model::ModelCard& card) const;
  void clear();

  std::vector<std::string> names() const;
  std::optional<Loading> loading() const;
  std::string device() const;

 private:
  Status check_size(const model::ModelCard& card) const;
  std::uint64_t free_memory() const;
  bool in_the_way(const model::ModelCard& card, const model::ModelCard& owed) const;
  bool has_room(const model::ModelCard& card);
  Result<std::unique_ptr<model::Model>> load(const model::ModelCard& card);
  bool unload_one();
  void publish();

  const LoadModel load_;
  const model::LoadOptions options_;
  const Limits limits_;
  const Planner assumed_;  // of a model that was just loaded
  store::Store& store_;
  const std::function<void()> wake_;
  std::list<std::unique_ptr<LoadedModel>> loaded_;  // most recently used first

  mutable std::mutex mutex_;  // guards what other threads look at
  std::vector<std::string> names_;
  std::optional<Loading> loading_;
  std::string device_;
};

}  // namespace kvfs::sched
