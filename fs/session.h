// One libfuse session: the kernel's connection, its open handles and its parked requests.
//
// Threads: FUSE workers inside loop(); the rest from any thread. Ownership: shared by the mount and
// by requests not answered yet, so that an answer that comes late still has a session to go to.
#pragma once

#include <chrono>
#include <condition_variable>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "fs/context.h"
#include "fs/node.h"

struct fuse_session;

namespace kvfs::fs {

class Request;

class Session : public std::enable_shared_from_this<Session> {
 public:
  // options: what follows -o. kInvalid when libfuse does not know one.
  static Result<std::shared_ptr<Session>> create(std::shared_ptr<Context> context,
                                                 const std::vector<std::string>& options);
  ~Session();

  Context& context() { return *context_; }
  fuse_session* fuse() { return fuse_; }

  Status mount(const std::string& mount_point);
  // Serves until the mount ends or exit(). On a thread of its own.
  void loop(int workers);
  // Makes loop() return; until has_ended says it did. `thread` runs it.
  void break_loop(std::thread& thread);
  void unmount();
  // The kernel's first request was answered. opens_directories: it cannot do without.
  void initialized(bool opens_directories) {
    opens_directories_ = opens_directories;
    initialized_.set_value();
  }
  bool opens_directories() const { return opens_directories_; }
  bool wait_initialized(std::chrono::milliseconds bound);

  // --- requests answered later
  // --------------------------------------------------------------------
  void begin_request();
  void end_request();
  bool wait_requests(std::chrono::milliseconds bound);  // until none is unanswered
  bool park(const std::shared_ptr<Request>& request);   // false: the mount is ending
  void unpark(const std::shared_ptr<Request>& request);
  void cancel_parked();  // and whatever would be parked from now on

  // --- what is open: the kernel does not release it when a mount ends
  // ------------------------------
  std::uint64_t keep(std::unique_ptr<Opened> opened);
  // For an operation that is not answered yet. It holds on to what it uses: once answered, another
  // worker may release it.
  static std::shared_ptr<Opened> opened(std::uint64_t fh) {
    return reinterpret_cast<Opened*>(fh)->shared_from_this();
  }
  std::shared_ptr<Opened> take(std::uint64_t fh);
  void drop_opened();  // the loop has ended and nothing is unanswered

 private:
  explicit Session(std::shared_ptr<Context> context) : context_(std::move(context)) {}

  const std::shared_ptr<Context> context_;  // shared, see context.h
  fuse_session* fuse_ = nullptr;
  bool mounted_ = false;
  bool opens_directories_ = false;  // written before the kernel's next request
  std::promise<void> initialized_;
  std::future<void> is_initialized_ = initialized_.get_future();

  std::mutex mutex_;  // guards everything below
  std::condition_variable changed_;
  std::size_t unanswered_ = 0;
  bool ending_ = false;
  bool loop_ended_ = false;
  std::unordered_set<std::shared_ptr<Request>> parked_;
  std::unordered_map<std::uint64_t, std::shared_ptr<Opened>> opened_;
};

}  // namespace kvfs::fs
