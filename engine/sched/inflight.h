// Counts calls that are under way elsewhere, so that what they refer to can be taken down after
// them. Any thread.
#pragma once

#include <condition_variable>
#include <mutex>

namespace kvfs::sched {

class Inflight {
 public:
  void enter() {
    const std::lock_guard lock(mutex_);
    ++count_;
  }
  void leave() {
    const std::lock_guard lock(mutex_);
    --count_;
    none_.notify_all();  // under the lock: a waiter may destroy this as soon as it is let go
  }
  void wait() {
    std::unique_lock lock(mutex_);
    none_.wait(lock, [this] { return count_ == 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable none_;
  int count_ = 0;
};

}  // namespace kvfs::sched
