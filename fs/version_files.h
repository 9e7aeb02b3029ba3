// A version's files as the mount shows them: sizes, views, and pins that keep them readable.
//
// Any thread. A version's record and sizes never change, so they are cached; views are kept only
// while somebody reads. Ownership: VersionFiles is shared by the cache and by open handles.
#pragma once

#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "engine/store/store.h"
#include "engine/store/views.h"
#include "fs/inode.h"

namespace kvfs::fs {

class VersionFiles {
 public:
  VersionFiles(store::Store& store, store::VersionRecord record)
      : store_(store), record_(std::move(record)) {}

  const store::VersionRecord& record() const { return record_; }
  bool empty() const { return record_.n_tokens == 0; }
  // kNotFound: the version has no such layer.
  Result<std::shared_ptr<store::FileView>> view(VersionPart part);
  Result<std::uint64_t> size(VersionPart part);

 private:
  store::Store& store_;
  const store::VersionRecord record_;
  std::mutex mutex_;  // guards everything below
  std::map<VersionPart, std::weak_ptr<store::FileView>> views_;
  std::map<VersionPart, std::uint64_t> sizes_;
};

class VersionCache {
 public:
  explicit VersionCache(store::Store& store) : store_(store) {}
  Result<std::shared_ptr<VersionFiles>> get(VersionId id);

 private:
  static constexpr std::size_t kKept = 64;
  using Slot = std::pair<VersionId, std::shared_ptr<VersionFiles>>;
  store::Store& store_;
  std::mutex mutex_;        // guards recent_
  std::list<Slot> recent_;  // newest first
};

}  // namespace kvfs::fs
