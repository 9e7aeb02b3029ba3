// When names in a directory last changed: its own times, for make, backups and mail readers. In
// memory alone: after a restart a directory is as old as its state.
//
// Any thread; one lock.
#pragma once

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <unordered_map>

#include "fs/clock.h"
#include "fs/inode.h"

namespace kvfs::fs {

class NameTimes {
 public:
  void changed(Ino directory) {
    const std::lock_guard lock(mutex_);
    changed_[directory] = now_ns();
  }
  void drop(Ino directory) {
    const std::lock_guard lock(mutex_);
    changed_.erase(directory);
  }
  // The later of the two.
  std::int64_t at_least(Ino directory, std::int64_t other_ns) const {
    const std::lock_guard lock(mutex_);
    const auto it = changed_.find(directory);
    return it == changed_.end() ? other_ns : std::max(it->second, other_ns);
  }

 private:
  mutable std::mutex mutex_;  // guards changed_
  std::unordered_map<Ino, std::int64_t> changed_;
};

}  // namespace kvfs::fs
