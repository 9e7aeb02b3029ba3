#include "fs/staging.h"

#include <utility>

#include "fs/staged_file.h"

namespace kvfs::fs {

std::shared_ptr<StagedFile> Staging::find(const Place& place, std::string_view name) const {
  const std::lock_guard lock(mutex_);
  const auto files = places_.find(place);
  if (files == places_.end()) return nullptr;
  const auto it = files->second.find(name);
  return it == files->second.end() ? nullptr : it->second;
}

std::vector<std::shared_ptr<StagedFile>> Staging::list(const Place& place) const {
  std::vector<std::shared_ptr<StagedFile>> out;
  const std::lock_guard lock(mutex_);
  if (const auto files = places_.find(place); files != places_.end()) {
    for (const auto& [name, file] : files->second) out.push_back(file);
  }
  return out;
}

std::vector<std::shared_ptr<StagedFile>> Staging::all() const {
  std::vector<std::shared_ptr<StagedFile>> out;
  const std::lock_guard lock(mutex_);
  for (const auto& [place, files] : places_) {
    for (const auto& [name, file] : files) out.push_back(file);
  }
  return out;
}

std::shared_ptr<StagedFile> Staging::add(std::shared_ptr<StagedFile> file) {
  const Place place = file->place();
  const std::string name = file->name();
  const std::lock_guard lock(mutex_);
  return places_[place].try_emplace(name, std::move(file)).first->second;
}

void Staging::remove(const Place& place, const std::string& name, const StagedFile* file) {
  std::shared_ptr<StagedFile> dropped;  // destroyed outside the lock: it gives its bytes back
  const std::lock_guard lock(mutex_);
  const auto files = places_.find(place);
  if (files == places_.end()) return;
  const auto it = files->second.find(name);
  if (it == files->second.end() || it->second.get() != file) return;
  dropped = std::move(it->second);
  files->second.erase(it);
  if (files->second.empty()) places_.erase(files);
}

void Staging::remove(StateId state) {
  std::vector<Files> dropped;
  const std::lock_guard lock(mutex_);
  for (auto it = places_.lower_bound({state, StatePart::kDirectory});
       it != places_.end() && it->first.state == state;) {
    dropped.push_back(std::move(it->second));
    it = places_.erase(it);
  }
}

bool Staging::take(std::uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  if (bytes_ + bytes > kAllBytes) return false;
  bytes_ += bytes;
  return true;
}

void Staging::give(std::uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  bytes_ -= bytes;
}

}  // namespace kvfs::fs
