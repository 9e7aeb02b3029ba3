#include "fs/notifier.h"

#include <utility>

#include "fs/fuse.h"

namespace kvfs::fs {

Notifier::Notifier() : thread_([this] { run(); }) {}

Notifier::~Notifier() { stop(); }

void Notifier::serve(fuse_session* session) {
  const std::lock_guard lock(mutex_);
  session_ = session;
}

void Notifier::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Notifier::entry(Ino directory, std::string name) {
  post({directory, std::move(name), false, {}});
}

void Notifier::attributes(Ino ino) { post({ino, {}, false, {}}); }

void Notifier::listing(Ino directory) { post({directory, {}, true, {}}); }

void Notifier::listing_now(Ino directory) {
  fuse_session* session = nullptr;
  {
    const std::lock_guard lock(mutex_);
    if (!stopping_) session = session_;
  }
  if (session != nullptr) fuse_lowlevel_notify_inval_inode(session, directory, 0, 0);
}

void Notifier::then(std::function<void()> told) { post({0, {}, false, std::move(told)}); }

void Notifier::post(Notice notice) {
  {
    std::unique_lock lock(mutex_);
    if (session_ == nullptr || stopping_) {
      lock.unlock();
      if (notice.then) notice.then();
      return;
    }
    if (!queue_.empty() && queue_.back().says(notice)) return;
    queue_.push_back(std::move(notice));
    ++posted_;
  }
  changed_.notify_all();
}

void Notifier::wait(StateId state, std::chrono::milliseconds bound) {
  std::unique_lock lock(mutex_);
  const std::uint64_t mine = posted_;
  changed_.wait_for(lock, bound,
                    [&] { return told_ >= mine || stopping_ || removing_.contains(state); });
}

void Notifier::removing(StateId state, bool begins) {
  {
    const std::lock_guard lock(mutex_);
    if (begins) {
      ++removing_[state];
    } else if (const auto it = removing_.find(state); it != removing_.end() && --it->second == 0) {
      removing_.erase(it);
    }
  }
  changed_.notify_all();
}

void Notifier::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stopping_ || !queue_.empty(); });
    if (stopping_) break;
    const Notice notice = std::move(queue_.front());
    queue_.pop_front();
    fuse_session* const session = session_;
    lock.unlock();
    // Failure says that the kernel does not know the inode or the name: then there is nothing to
    // tell.
    if (notice.then) {
      notice.then();
    } else if (notice.name.empty()) {
      fuse_lowlevel_notify_inval_inode(session, notice.ino, notice.listing ? 0 : -1, 0);
    } else {
      fuse_lowlevel_notify_inval_entry(session, notice.ino, notice.name.data(), notice.name.size());
    }
    lock.lock();
    ++told_;
    changed_.notify_all();
  }
  const std::deque<Notice> untold = std::move(queue_);
  queue_.clear();
  lock.unlock();
  for (const Notice& notice : untold) {
    if (notice.then) notice.then();
  }
}

}  // namespace kvfs::fs
