// Where a running job's time goes: all of it is spent on one thing or another.
//
// One thread at a time.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>

#include "engine/store/records.h"

namespace kvfs::sched {

class JobClock {
 public:
  using Clock = std::chrono::steady_clock;
  enum class Part { kRestore, kRecompute, kKnown, kRead, kGenerate, kSave };

  void spend_on(Part part) {
    if (part == part_) return;
    const auto now = Clock::now();
    spent(part_) += now - since_;
    part_ = part;
    since_ = now;
  }
  // With what the present part has taken so far; what came before the clock is the caller's.
  store::JobTimes times() const {
    JobClock now = *this;
    now.spent(part_) += Clock::now() - since_;
    return {.restore = now.milliseconds(Part::kRestore),
            .recompute = now.milliseconds(Part::kRecompute),
            .known = now.milliseconds(Part::kKnown),
            .read = now.milliseconds(Part::kRead),
            .generate = now.milliseconds(Part::kGenerate),
            .save = now.milliseconds(Part::kSave)};
  }

 private:
  Clock::duration& spent(Part part) { return spent_[static_cast<std::size_t>(part)]; }
  std::uint32_t milliseconds(Part part) {
    return static_cast<std::uint32_t>(
        std::chrono::round<std::chrono::milliseconds>(spent(part)).count());
  }

  std::array<Clock::duration, 6> spent_{};
  Part part_ = Part::kRestore;
  Clock::time_point since_ = Clock::now();
};

}  // namespace kvfs::sched
