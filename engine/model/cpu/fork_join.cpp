#include "engine/model/cpu/fork_join.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace kvfs::model::cpu {
namespace {

// About 10 µs: longer than the gap between two loops, shorter than anyone notices; on a busy
// machine the core is worth more to somebody else.
constexpr int kSpins = 500;

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

template <class T>
void wait_while(const std::atomic<T>& value, T old) {
  for (int i = 0; i < kSpins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    pause();
  }
  value.wait(old, std::memory_order_acquire);
}

}  // namespace

ForkJoin::ForkJoin(int threads, void (*begin)()) {
  for (int i = 1; i < threads; ++i) {
    workers_.emplace_back([this, i, begin] {
      if (begin != nullptr) begin();
      serve(i);
    });
  }
}

ForkJoin::~ForkJoin() {
  stop_.store(true, std::memory_order_relaxed);
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ForkJoin::run(const Loop& loop) {
  loop_ = loop;
  done_.store(0, std::memory_order_relaxed);
  ticket_.store(std::uint64_t{loop.count} << 32, std::memory_order_release);
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  work(0);
  for (std::uint32_t done = done_.load(std::memory_order_acquire); done != loop.count;
       done = done_.load(std::memory_order_acquire)) {
    wait_while(done_, done);
  }
}

// A ticket is good for the loop it was drawn from and holds that loop open until its unit is done;
// a worker that wakes up late draws a blank, or one of the next loop.
void ForkJoin::work(int thread) {
  for (;;) {
    const std::uint64_t ticket = ticket_.fetch_add(1, std::memory_order_acq_rel);
    const auto unit = static_cast<std::uint32_t>(ticket);
    const auto count = static_cast<std::uint32_t>(ticket >> 32);
    if (unit >= count) return;
    loop_.call(loop_.context, static_cast<int>(unit), thread);
    if (done_.fetch_add(1, std::memory_order_acq_rel) + 1 == count) done_.notify_one();
  }
}

void ForkJoin::serve(int thread) {
  for (std::uint32_t seen = 0;;) {
    wait_while(round_, seen);
    seen = round_.load(std::memory_order_acquire);
    if (stop_.load(std::memory_order_relaxed)) return;
    work(thread);
  }
}

}  // namespace kvfs::model::cpu
