// Comparisons on the engine thread: one step of one of them a round, between what jobs need.
#include <utility>

#include "engine/sched/engine_loop.h"

namespace kvfs::sched {
namespace {

constexpr std::size_t kMostComparisons = 16;

}  // namespace

Status EngineLoop::compare(std::unique_ptr<ComparisonRun> run) {
  {
    const std::lock_guard lock(mutex_);
    if (stop_) {
      return fail(ErrorCode::kInterrupted, "compare", "the daemon is stopping",
                  "compare again when it is back");
    }
    if (comparing_ >= kMostComparisons) {
      return fail(ErrorCode::kAgain, "compare",
                  std::to_string(comparing_) + " comparisons are under way", "try again later");
    }
    ++comparing_;
    to_compare_.push_back(std::move(run));
  }
  wake();
  return {};
}

bool EngineLoop::compare() {
  {
    const std::lock_guard lock(mutex_);
    while (!to_compare_.empty()) {
      comparisons_.push_back(std::move(to_compare_.front()));
      to_compare_.pop_front();
    }
  }
  for (auto it = comparisons_.begin(); it != comparisons_.end(); ++it) {
    if (!step(**it)) continue;
    // Who was served goes behind the others.
    if ((*it)->over()) {
      comparisons_.erase(it);
      room_changed_ = true;
      const std::lock_guard lock(mutex_);
      --comparing_;
    } else {
      comparisons_.splice(comparisons_.end(), comparisons_, it);
    }
    return true;
  }
  return false;
}

bool EngineLoop::step(ComparisonRun& run) {
  if (!run.has_model()) {
    const auto on = models_.get(run.card(), owed());
    if (!on) {
      run.end(on.error());
      return true;
    }
    if (*on == nullptr) return run.leaves();  // jobs on other models end first, and wake this
    run.start(**on);
  }
  const bool progress = run.step();
  const auto work = run.take_work();
  prefilled_ += work.prefilled;
  decoded_ += work.decoded;
  return progress;
}

void EngineLoop::end_comparisons() {
  std::deque<std::unique_ptr<ComparisonRun>> waiting;
  {
    const std::lock_guard lock(mutex_);
    waiting.swap(to_compare_);
  }
  for (auto& run : waiting) comparisons_.push_back(std::move(run));
  for (const auto& run : comparisons_) {
    run->end(Error{ErrorCode::kInterrupted, "compare", "the daemon is stopping",
                   "compare again when it is back"});
  }
  comparisons_.clear();
}

}  // namespace kvfs::sched
