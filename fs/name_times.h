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
  // What is known of a state that is gone.
  void drop(StateId state) {
    for (const StatePart part : {StatePart::kDirectory, StatePart::kFeed, StatePart::kContinue,
                                 StatePart::kAsk, StatePart::kReplies}) {
      drop(ino_of(state, part));
    }
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
