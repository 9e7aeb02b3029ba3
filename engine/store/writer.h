// The one writer thread: bodies that change the store, each inside a transaction of its own,
// several of them under one commit and one sync.
//
// Each of a group's bodies runs in a nested transaction, so one that fails leaves the others as
// they are; a failed commit fails the whole group. `done` is called on the writer thread once the
// group is on disk, or with the reason why not. The destructor stops it. Threads: submit and run
// from any thread but the writer's own, where run() yields kInternal.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

#include "engine/store/environment.h"

namespace kvfs::store {

class Writer {
 public:
  using Body = std::function<Status(Txn&)>;
  using Done = std::function<void(Status)>;

  explicit Writer(Environment& environment);
  ~Writer();
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  // Runs what is queued and ends the thread; nothing may be submitted afterwards.
  void stop();
  // weight: about the bytes it will write, which bounds a group.
  void submit(Body body, Done done, std::size_t weight = 0);
  Status run(const Body& body, std::size_t weight = 0);
  bool on_writer_thread() const { return std::this_thread::get_id() == thread_.get_id(); }

 private:
  struct Task {
    Body body;
    Done done;
    std::size_t weight;
    Status status;
  };
  void loop();
  std::deque<Task> take_group();
  Status run_group(std::deque<Task>& group);

  Environment& environment_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Task> queue_;  // guarded by mutex_
  bool stop_ = false;       // guarded by mutex_
  std::thread thread_;
};

}  // namespace kvfs::store
