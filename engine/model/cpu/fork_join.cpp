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

ForkJoin::ForkJoin(int threads) {
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { serve(i); });
}

ForkJoin::~ForkJoin() {
  stop_.store(true, std::memory_order_relaxed);
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ForkJoin::run(const Loop& loop) {
  loop_ = loop;
  next_.store(0, std::memory_order_relaxed);
  busy_.store(static_cast<std::uint32_t>(workers_.size()), std::memory_order_relaxed);
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  work(0);
  for (std::uint32_t left = busy_.load(std::memory_order_acquire); left != 0;
       left = busy_.load(std::memory_order_acquire)) {
    wait_while(busy_, left);
  }
}

void ForkJoin::work(int thread) {
  for (int unit = next_.fetch_add(1, std::memory_order_relaxed); unit < loop_.count;
       unit = next_.fetch_add(1, std::memory_order_relaxed)) {
    loop_.call(loop_.context, unit, thread);
  }
}

void ForkJoin::serve(int thread) {
  std::uint32_t seen = 0;
  for (;;) {
    wait_while(round_, seen);
    ++seen;  // the owner starts no round before all are through with this one
    if (stop_.load(std::memory_order_relaxed)) return;
    work(thread);
    if (busy_.fetch_sub(1, std::memory_order_acq_rel) == 1) busy_.notify_one();
  }
}

}  // namespace kvfs::model::cpu
