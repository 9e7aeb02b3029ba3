#include "fs/hidden_names.h"

#include <algorithm>

namespace kvfs::fs {

void HiddenNames::hide(Ino directory, std::string_view name) {
  const auto now = Clock::now();
  const std::lock_guard lock(mutex_);
  if (until_.size() >= sweep_at_) {
    std::erase_if(until_, [&](const auto& entry) { return entry.second <= now; });
    sweep_at_ = std::max<std::size_t>(1024, 2 * until_.size());
  }
  until_[{directory, std::string(name)}] = now + kMoment;
}

void HiddenNames::show(Ino directory, std::string_view name) {
  const std::lock_guard lock(mutex_);
  until_.erase({directory, std::string(name)});
}

bool HiddenNames::hidden(Ino directory, std::string_view name) const {
  const std::lock_guard lock(mutex_);
  const auto it = until_.find({directory, std::string(name)});
  return it != until_.end() && Clock::now() < it->second;
}

bool HiddenNames::any(Ino directory) const {
  const auto now = Clock::now();
  const std::lock_guard lock(mutex_);
  for (auto it = until_.lower_bound({directory, {}}); it != until_.end(); ++it) {
    if (it->first.first != directory) return false;
    if (now < it->second) return true;
  }
  return false;
}

}  // namespace kvfs::fs
