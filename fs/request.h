// A kernel request that is answered later, from whatever thread: once, the first answer wins.
//
// Callbacks share it; if the last of them goes without having answered, it answers EIO. A parked
// read is answered EINTR by the kernel's interrupt and ECANCELED by the mount's end.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>

#include "fs/fuse.h"
#include "fs/node.h"
#include "fs/session.h"

namespace kvfs::fs {

class Request : public ReadAnswer, public std::enable_shared_from_this<Request> {
 public:
  Request(std::shared_ptr<Session> session, fuse_req_t request);
  ~Request() override;
  Request(const Request&) = delete;
  Request& operator=(const Request&) = delete;

  Session& session() { return *session_; }

  // Gives the answer by `reply` unless there was one already.
  void answer(const std::function<void(fuse_req_t)>& reply);
  void error(int number);
  void status(const Status& status);

  void data(ByteSpan bytes) override;
  void fail(const Error& why) override;
  bool park() override;
  void on_drop(std::function<void()> drop) override;
  bool answered() const override { return answered_; }

  void cancel(int number);  // of a parked one: answers, and takes back what would have

 private:
  static void interrupted(fuse_req_t request, void* self);
  bool claim() { return !answered_.exchange(true); }
  void finish(const std::function<void(fuse_req_t)>& reply);
  void dropped();

  const std::shared_ptr<Session> session_;  // shared, see session.h
  const fuse_req_t request_;
  std::atomic<bool> answered_ = false;
  std::atomic<bool> is_parked_ = false;
  std::mutex mutex_;  // guards everything below; held for no call
  bool arming_ = false;
  bool interrupted_ = false;
  bool was_dropped_ = false;
  std::function<void()> drop_;
};

}  // namespace kvfs::fs
