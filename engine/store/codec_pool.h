// A few threads for encoding and hashing. run() may be called from many threads at once; each call
// works on its own share until that is done.
#pragma once

#include <atomic>
#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <cstddef>
#include <functional>
#include <latch>

namespace kvfs::store {

class CodecPool {
 public:
  explicit CodecPool(int threads) : threads_(threads < 1 ? 1 : threads), pool_(threads_) {}

  // Calls task(0) … task(count − 1), in any order, on the pool's threads; returns when all are
  // done.
  void run(std::size_t count, const std::function<void(std::size_t)>& task) {
    std::atomic<std::size_t> next = 0;
    std::latch done(static_cast<std::ptrdiff_t>(threads_));
    for (std::size_t i = 0; i < threads_; ++i) {
      boost::asio::post(pool_, [&] {
        for (std::size_t item; (item = next++) < count;) task(item);
        done.count_down();
      });
    }
    done.wait();
  }

 private:
  std::size_t threads_;
  boost::asio::thread_pool pool_;
};

}  // namespace kvfs::store
