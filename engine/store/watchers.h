// Who wants to hear of something, and telling them.
//
// Any thread. A watcher is called with the lock held: remove() waits for it.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <span>
#include <utility>

namespace kvfs::store {

template <class News>
class Watchers {
 public:
  std::uint64_t add(std::function<void(const News&)> watcher) {
    const std::lock_guard lock(mutex_);
    watchers_.emplace(++last_, std::move(watcher));
    any_ = true;
    return last_;
  }
  void remove(std::uint64_t watch) {
    const std::lock_guard lock(mutex_);
    watchers_.erase(watch);
    any_ = !watchers_.empty();
  }
  bool any() const { return any_; }
  void tell(std::span<const News> news) {
    if (news.empty()) return;
    const std::lock_guard lock(mutex_);
    for (const News& each : news) {
      for (const auto& [watch, watcher] : watchers_) watcher(each);
    }
  }

 private:
  std::mutex mutex_;  // guards watchers_, last_
  std::map<std::uint64_t, std::function<void(const News&)>> watchers_;
  std::uint64_t last_ = 0;
  std::atomic<bool> any_ = false;
};

}  // namespace kvfs::store
