// The one writer thread: bodies that change the store, each inside a transaction of its own,
// several of them under one commit and one sync.
//
// Each of a group's bodies runs in a nested transaction, so one that fails leaves the others as
// they are; a failed commit fails the whole group. `done` is called on the writer thread once the
// group is on disk, or with the reason why not; of what is submitted to be kept kSoon, once every
// reader sees it. Its transaction stays open for kSoonest, and whatever is written meanwhile joins
// it, in order. Should its commit fail, it is tried again: what readers saw stays. The destructor
// stops it. Threads: submit and run from any thread but the writer's own, where run() yields
// kInternal.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "engine/store/environment.h"

namespace kvfs::store {

enum class Kept { kNow, kSoon };  // on disk, when `done` is called

class Writer {
 public:
  static constexpr std::chrono::milliseconds kSoonest{100};
  using Body = std::function<Status(Txn&)>;
  using Done = std::function<void(Status)>;

  explicit Writer(Environment& environment);
  ~Writer();
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  // Runs what is queued and ends the thread; nothing may be submitted afterwards.
  void stop();
  // weight: about the bytes it will write, which bounds a group.
  void submit(Body body, Done done, std::size_t weight = 0, Kept kept = Kept::kNow);
  Status run(const Body& body, std::size_t weight = 0);
  bool on_writer_thread() const { return std::this_thread::get_id() == thread_.get_id(); }

 private:
  struct Task {
    Body body;
    Done done;
    std::size_t weight;
    Kept kept;
    Status status;
  };
  using Group = std::deque<Task>;
  void loop();
  bool take_group(Group& group);
  // Writer thread.
  Status open();
  void run_early(Task& task);
  Status run_task(Task& task, TouchedKeys* touched);
  Status run_group(Group& group);
  Status commit();

  Environment& environment_;
  std::mutex mutex_;
  std::condition_variable wake_;
  Group queue_;        // guarded by mutex_
  bool stop_ = false;  // guarded by mutex_

  // The writer thread's own.
  std::optional<Txn> txn_;                // open: what is kept soon
  std::shared_ptr<const Overlay> shown_;  // of it, or of one whose commit failed; null: nothing
  std::optional<std::chrono::steady_clock::time_point> due_;  // its commit

  std::thread thread_;
};

}  // namespace kvfs::store
