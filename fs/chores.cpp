#include "fs/chores.h"

#include <utility>

namespace kvfs::fs {

Chores::Chores() : thread_([this] { run(); }) {}

Chores::~Chores() { stop(); }

void Chores::post_after(std::chrono::milliseconds delay, std::function<void()> chore) {
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return;
    due_.emplace(Clock::now() + delay, std::move(chore));
  }
  changed_.notify_one();
}

void Chores::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  if (thread_.joinable()) thread_.join();
  due_.clear();
}

void Chores::run() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    if (due_.empty()) {
      changed_.wait(lock);
      continue;
    }
    const auto next = due_.begin();
    if (const auto at = next->first; Clock::now() < at) {
      changed_.wait_until(lock, at);
      continue;
    }
    auto chore = std::move(due_.extract(next).mapped());
    lock.unlock();
    chore();
    chore = nullptr;  // what it captured goes outside the lock
    lock.lock();
  }
}

}  // namespace kvfs::fs
