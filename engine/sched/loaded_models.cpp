#include "engine/sched/loaded_models.h"

#include <algorithm>
#include <utility>

#include "codec/base/log.h"

namespace kvfs::sched {

std::uint64_t LoadedModel::token_bytes() const {
  std::uint64_t elements = 0;
  for (const auto& layer : model->info().layers) {
    elements += layer.block_elements();
  }
  return elements * size_of(model->info().kv_dtype) / kBlockTokens;
}

Result<LoadedModel*> LoadedModels::get(const model::ModelCard& card) {
  const auto it = std::ranges::find_if(loaded_, [&](const auto& m) { return &m->card == &card; });
  if (it != loaded_.end()) {
    loaded_.splice(loaded_.begin(), loaded_, it);
    return loaded_.front().get();
  }
  while (true) {
    auto loaded = load_(card, options_);
    if (loaded) {
      loaded_.push_front(
          std::make_unique<LoadedModel>(card, *std::move(loaded), assumed_, store_, wake_));
      publish();
      KVFS_INFO("model {}: loaded on {}", card.info.name, loaded_.front()->model->info().device);
      return loaded_.front().get();
    }
    if (loaded.error().code != ErrorCode::kTooLarge || loaded_.empty()) return fail(loaded.error());
    if (!unload_one()) return nullptr;
  }
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

std::string LoadedModels::device() const {
  const std::lock_guard lock(mutex_);
  return device_;
}

}  // namespace kvfs::sched
