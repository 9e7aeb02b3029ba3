// One thread for what a FUSE worker must not do: what comes later, and what waits for a commit.
//
// Any thread may post. Chores run one after the other; those still waiting at stop() are dropped.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <thread>

namespace kvfs::fs {

class Chores {
 public:
  using Clock = std::chrono::steady_clock;

  Chores();
  ~Chores();  // stop()

  void post(std::function<void()> chore) { post_after({}, std::move(chore)); }
  void post_after(std::chrono::milliseconds delay, std::function<void()> chore);
  // Waits for the chore that runs. Idempotent; not from a chore.
  void stop();

 private:
  void run();

  std::mutex mutex_;  // guards due_, stopping_
  std::condition_variable changed_;
  std::multimap<Clock::time_point, std::function<void()>> due_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace kvfs::fs
