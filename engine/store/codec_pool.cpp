#include "engine/store/codec_pool.h"

#include <algorithm>
#include <atomic>
#include <latch>

#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>

namespace kvfs::store {

struct CodecPool::Threads {
  explicit Threads(std::size_t threads) : count(threads), pool(threads) {}

  std::size_t count;
  boost::asio::thread_pool pool;
};

CodecPool::CodecPool(int threads)
    : threads_(std::make_unique<Threads>(static_cast<std::size_t>(std::max(threads, 1)))) {}
CodecPool::~CodecPool() = default;

void CodecPool::run(std::size_t count, const std::function<void(std::size_t)>& task) {
  std::atomic<std::size_t> next = 0;
  std::latch done(static_cast<std::ptrdiff_t>(threads_->count));
  for (std::size_t i = 0; i < threads_->count; ++i) {
    boost::asio::post(threads_->pool, [&] {
      for (std::size_t item; (item = next++) < count;) task(item);
      done.count_down();
    });
  }
  done.wait();
}

}  // namespace kvfs::store
