// A thread that tells the kernel what it must no longer believe.
//
// Telling may block on the kernel's lock of a directory, which a request to this daemon can hold:
// so it happens on such a thread alone, which answers no request and which nobody waits for without
// a bound. Any thread may post, in any operation; what is posted is told in order.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>

#include "codec/base/ids.h"
#include "fs/inode.h"

struct fuse_session;

namespace kvfs::fs {

class Notifier {
 public:
  Notifier();
  ~Notifier();  // stop()

  // From here on until stop(); what was posted before is dropped: no kernel knew anything.
  void serve(fuse_session* session);
  void stop();

  void entry(Ino directory, std::string name);  // the name may stand for something else now
  void attributes(Ino ino);                     // size, times, mode may have changed
  void listing(Ino directory);                  // and what the kernel keeps of what it lists
  // The same at once, on the caller's thread: it takes no lock of a directory. Of a directory that
  // the request which is being answered, if any, is not about.
  void listing_now(Ino directory);
  // Called once, on this thread, when what was posted before has been told (or never will be).
  void then(std::function<void()> told);

  // Waits until what was posted before has been told, at most `bound`, and not at all while the
  // state is being removed (its removal may be what the kernel's lock and the caller wait for).
  void wait(StateId state, std::chrono::milliseconds bound);
  void removing(StateId state, bool begins);

 private:
  struct Notice {
    Ino ino = 0;
    std::string name;            // none: attributes
    bool listing = false;        // and its contents
    std::function<void()> then;  // set: nothing to tell but this
    bool says(const Notice& other) const {
      return !then && !other.then && ino == other.ino && name == other.name &&
             listing == other.listing;
    }
  };
  void post(Notice notice);
  void run();

  std::mutex mutex_;  // guards everything below but thread_
  std::condition_variable changed_;
  std::deque<Notice> queue_;
  std::uint64_t posted_ = 0, told_ = 0;
  std::unordered_map<StateId, int> removing_;
  fuse_session* session_ = nullptr;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace kvfs::fs
