// A few threads for encoding and hashing. run() may be called from many threads at once; each call
// works on its own share until that is done.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>

namespace kvfs::store {

class CodecPool {
 public:
  explicit CodecPool(int threads);
  ~CodecPool();

  // Calls task(0) … task(count − 1), in any order, on the pool's threads; returns when all are
  // done.
  void run(std::size_t count, const std::function<void(std::size_t)>& task);

 private:
  struct Threads;
  std::unique_ptr<Threads> threads_;
};

}  // namespace kvfs::store
