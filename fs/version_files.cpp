#include "fs/version_files.h"

#include <utility>

namespace kvfs::fs {

Result<std::shared_ptr<store::FileView>> VersionFiles::view(VersionPart part) {
  {
    const std::lock_guard lock(mutex_);
    if (auto view = views_[part].lock()) return view;
  }
  KVFS_ASSIGN(std::shared_ptr<store::FileView> view, store::part_view(store_, record_, part));
  const std::lock_guard lock(mutex_);
  views_[part] = view;
  sizes_[part] = view->size();
  return view;
}

Result<std::uint64_t> VersionFiles::size(VersionPart part) {
  {
    const std::lock_guard lock(mutex_);
    if (const auto it = sizes_.find(part); it != sizes_.end()) return it->second;
  }
  KVFS_ASSIGN(const auto view, view(part));
  return view->size();
}

Result<std::shared_ptr<VersionFiles>> VersionCache::get(VersionId id) {
  {
    const std::lock_guard lock(mutex_);
    for (auto it = recent_.begin(); it != recent_.end(); ++it) {
      if (it->first != id) continue;
      recent_.splice(recent_.begin(), recent_, it);
      return it->second;
    }
  }
  KVFS_ASSIGN(store::VersionRecord record, store_.version(id));
  auto files = std::make_shared<VersionFiles>(store_, std::move(record));
  const std::lock_guard lock(mutex_);
  recent_.emplace_front(id, files);
  if (recent_.size() > kKept) recent_.pop_back();
  return files;
}

}  // namespace kvfs::fs
