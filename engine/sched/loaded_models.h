// Models whose weights are on the device. The least recently used one that no job runs on makes
// room for another. Engine thread only, but for names() and device().
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/model/model.h"
#include "engine/sched/residency.h"

namespace kvfs::sched {

using LoadModel = std::function<Result<std::unique_ptr<model::Model>>(const model::ModelCard&,
                                                                      const model::LoadOptions&)>;

struct LoadedModel {
  const model::ModelCard& card;
  std::unique_ptr<model::Model> model;
  Planner planner;  // what was measured on it
  Residency residency;
  int jobs = 0;  // running on it

  LoadedModel(const model::ModelCard& its_card, std::unique_ptr<model::Model> its_model,
              const Planner& assumed, store::Store& store, std::function<void()> wake)
      : card(its_card),
        model(std::move(its_model)),
        planner(assumed),
        residency(*model, store, planner, std::move(wake)) {}
  LoadedModel(const LoadedModel&) = delete;
  LoadedModel& operator=(const LoadedModel&) = delete;
  std::uint64_t token_bytes() const;  // of KV, all layers
};

class LoadedModels {
 public:
  LoadedModels(LoadModel load, model::LoadOptions options, const Planner& assumed,
               store::Store& store, std::function<void()> wake)
      : load_(std::move(load)),
        options_(std::move(options)),
        assumed_(assumed),
        store_(store),
        wake_(std::move(wake)) {}

  // Loads it if need be. Null: jobs on other models must end first.
  Result<LoadedModel*> get(const model::ModelCard& card);
  std::list<std::unique_ptr<LoadedModel>>& all() { return loaded_; }
  void clear();

  std::vector<std::string> names() const;
  std::string device() const;

 private:
  bool unload_one();
  void publish();

  const LoadModel load_;
  const model::LoadOptions options_;
  const Planner assumed_;  // of a model that was just loaded
  store::Store& store_;
  const std::function<void()> wake_;
  std::list<std::unique_ptr<LoadedModel>> loaded_;  // most recently used first

  mutable std::mutex mutex_;  // guards what other threads look at
  std::vector<std::string> names_;
  std::string device_;
};

}  // namespace kvfs::sched
