// A pool that splits one loop over its threads and waits for all of it.
//
// One owner thread calls for_each; it works too. Units are taken one by one, and the owner waits
// for units, not for threads: a worker that the system holds up delays nobody unless it holds a
// unit. Which thread does a unit must not matter to its result. Workers spin for a moment between
// loops (a forward pass has hundreds) and then sleep: an idle pool costs nothing. Functions must
// not throw.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

namespace kvfs::model::cpu {

class ForkJoin {
 public:
  // threads: the owner included, at least 1. begin is called by each of the others first.
  explicit ForkJoin(int threads, void (*begin)() = nullptr);
  ~ForkJoin();
  ForkJoin(const ForkJoin&) = delete;
  ForkJoin& operator=(const ForkJoin&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // fn(unit, thread) for each unit below count; thread is below threads().
  template <class Fn>
  void for_each(int count, Fn&& fn) {
    if (count <= 1 || workers_.empty()) {
      for (int unit = 0; unit < count; ++unit) fn(unit, 0);
      return;
    }
    run(Loop{static_cast<std::uint32_t>(count),
             const_cast<void*>(static_cast<const void*>(std::addressof(fn))),
             [](void* context, int unit, int thread) {
               (*static_cast<std::remove_reference_t<Fn>*>(context))(unit, thread);
             }});
  }

 private:
  struct Loop {
    std::uint32_t count = 0;
    void* context = nullptr;
    void (*call)(void*, int unit, int thread) = nullptr;
  };

  void run(const Loop& loop);
  void work(int thread);
  void serve(int thread);

  Loop loop_;                             // read with a ticket alone, written when all are done
  std::atomic<std::uint64_t> ticket_{0};  // units of the loop << 32 | the next unit
  std::atomic<std::uint32_t> done_{0};    // units
  std::atomic<std::uint32_t> round_{0};   // grows with each loop; workers wait on it
  std::atomic<bool> stop_{false};
  std::vector<std::thread> workers_;
};

}  // namespace kvfs::model::cpu
