#include "engine/sched/loaded_models.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "codec/base/log.h"

namespace kvfs::sched {
namespace {

// What a model that shares the memory has KV for, at least.
constexpr std::int32_t kLeastTokens = 4096;
constexpr auto kSayAgain = std::chrono::seconds(1);

std::uint64_t token_bytes_of(const model::ModelInfo& info) {
  std::uint64_t elements = 0;
  for (const auto& layer : info.layers) elements += layer.block_elements();
  return elements * size_of(info.kv_dtype) / kBlockTokens;
}

std::uint64_t least_kv(const model::ModelInfo& info, std::uint64_t asked) {
  if (asked > 0) return asked;
  return token_bytes_of(info) *
         static_cast<std::uint64_t>(std::min(info.context_length, kLeastTokens));
}

std::uint64_t less(std::uint64_t from, std::uint64_t what) { return from - std::min(from, what); }

}  // namespace

std::uint64_t LoadedModel::token_bytes() const { return token_bytes_of(model->info()); }

std::uint64_t LoadedModel::memory() const {
  return card.info.resident_bytes + model->kv_bytes_budget();
}

bool LoadedModels::holds(const model::ModelCard& card) const {
  return std::ranges::any_of(loaded_, [&](const auto& loaded) { return &loaded->card == &card; });
}

Result<LoadedModel*> LoadedModels::get(const model::ModelCard& card, const model::ModelCard* owed) {
  if (owed != nullptr && owed != &card && in_the_way(card, *owed)) return nullptr;
  const auto it = std::ranges::find_if(loaded_, [&](const auto& m) { return &m->card == &card; });
  if (it != loaded_.end()) {
    loaded_.splice(loaded_.begin(), loaded_, it);
    return loaded_.front().get();
  }
  KVFS_TRY(check_size(card));
  if (!has_room(card)) return nullptr;
  while (true) {
    auto loaded = load(card);
    if (loaded) {
      loaded_.push_front(
          std::make_unique<LoadedModel>(card, *std::move(loaded), assumed_, store_, wake_));
      publish();
      KVFS_INFO("model {}: loaded on {}, {} of weights, {} for KV", card.info.name,
                loaded_.front()->model->info().device, model::size_text(card.info.resident_bytes),
                model::size_text(loaded_.front()->model->kv_bytes_budget()));
      return loaded_.front().get();
    }
    // Others than this daemon use the machine too: what is free may be less than the budget.
    if (loaded.error().code != ErrorCode::kTooLarge || loaded_.empty()) return fail(loaded.error());
    if (!unload_one()) return nullptr;
  }
}

Status LoadedModels::check_size(const model::ModelCard& card) const {
  const std::uint64_t kv = least_kv(card.info, options_.kv_budget);
  if (limits_.memory == 0 || card.info.resident_bytes + kv <= limits_.memory) return {};
  return fail(ErrorCode::kTooLarge, "load model " + card.info.name,
              "it takes " + model::size_text(card.info.resident_bytes) + " of memory and " +
                  model::size_text(kv) + " for KV, the budget is " +
                  model::size_text(limits_.memory),
              "raise --memory, lower --kv-budget or use a smaller model");
}

std::uint64_t LoadedModels::free_memory() const {
  std::uint64_t free = limits_.memory;
  for (const auto& loaded : loaded_) free = less(free, loaded->memory());
  return free;
}

// Whether card has to go, or must not come, for owed to be loaded.
bool LoadedModels::in_the_way(const model::ModelCard& card, const model::ModelCard& owed) const {
  if (limits_.memory == 0 || !holds(card)) return true;
  const std::uint64_t wanted = owed.info.resident_bytes + least_kv(owed.info, options_.kv_budget);
  std::uint64_t free = free_memory();
  for (auto it = loaded_.rbegin(); it != loaded_.rend() && free < wanted; ++it) {
    if (&(*it)->card == &card) return true;
    free += (*it)->memory();
  }
  return false;
}

// Makes it by idle models, the least recently used first; none goes where all were not enough.
bool LoadedModels::has_room(const model::ModelCard& card) {
  if (limits_.memory == 0) return true;
  const std::uint64_t wanted = card.info.resident_bytes + least_kv(card.info, options_.kv_budget);
  std::uint64_t in_use = 0;
  for (const auto& loaded : loaded_) in_use += loaded->jobs > 0 ? loaded->memory() : 0;
  if (in_use + wanted > limits_.memory) return false;
  while (free_memory() < wanted && unload_one()) {
  }
  return true;
}

Result<std::unique_ptr<model::Model>> LoadedModels::load(const model::ModelCard& card) {
  model::LoadOptions options = options_;
  if (limits_.memory > 0 && options.kv_budget == 0) {
    const std::uint64_t rest = less(free_memory(), card.info.resident_bytes);
    options.kv_budget = limits_.several ? std::max(rest / 2, least_kv(card.info, 0)) : rest;
  }
  auto said = std::chrono::steady_clock::now();
  options.progress = [&, said](double share) mutable {
    const int percent = static_cast<int>(share * 100);
    {
      const std::lock_guard lock(mutex_);
      loading_ = Loading{card.info.name, percent};
    }
    const auto now = std::chrono::steady_clock::now();
    if (now - said < kSayAgain) return;
    said = now;
    KVFS_INFO("model {}: loading, {} %", card.info.name, percent);
  };
  options.progress(0);
  auto loaded = load_(card, options);
  const std::lock_guard lock(mutex_);
  loading_.reset();
  return loaded;
}

bool LoadedModels::unload_one() {
  const auto idle = std::find_if(loaded_.rbegin(), loaded_.rend(),
                                 [](const auto& loaded) { return loaded->jobs == 0; });
  if (idle == loaded_.rend()) return false;
  KVFS_INFO("model {}: unloaded to make room", (*idle)->card.info.name);
  loaded_.erase(std::next(idle).base());
  publish();
  return true;
}

void LoadedModels::clear() {
  loaded_.clear();
  publish();
}

void LoadedModels::publish() {
  const std::lock_guard lock(mutex_);
  names_.clear();
  for (const auto& loaded : loaded_) names_.push_back(loaded->card.info.name);
  device_ = loaded_.empty() ? "" : loaded_.front()->model->info().device;
}

std::vector<std::string> LoadedModels::names() const {
  const std::lock_guard lock(mutex_);
  return names_;
}

std::optional<Loading> LoadedModels::loading() const {
  const std::lock_guard lock(mutex_);
  return loading_;
}

std::string LoadedModels::device() const {
  const std::lock_guard lock(mutex_);
  return device_;
}

}  // namespace kvfs::sched
