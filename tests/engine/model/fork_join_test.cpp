#include "engine/model/cpu/fork_join.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

namespace kvfs::model::cpu {
namespace {

using ::testing::Each;

TEST(ForkJoin, EveryUnitIsDoneOnceBeforeTheLoopReturns) {
  for (const int threads : {1, 2, 3, 16}) {  // more than there are cores: they wake up late
    ForkJoin pool(threads);
    for (int loop = 0; loop < 3000; ++loop) {
      std::vector<int> times(static_cast<std::size_t>(loop % 7),
                             0);  // plain ints: the loop ends all
      pool.for_each(loop % 7, [&](int unit, int) { ++times[static_cast<std::size_t>(unit)]; });
      ASSERT_THAT(times, Each(1)) << "loop " << loop << " of " << threads << " threads";
    }
  }
}

TEST(ForkJoin, ThreadsHaveNumbersOfTheirOwn) {
  ForkJoin pool(4);
  std::vector<std::vector<int>> units(4);
  pool.for_each(1000, [&](int unit, int thread) {
    units[static_cast<std::size_t>(thread)].push_back(unit);  // a shared number would race here
  });
  std::size_t all = 0;
  for (const auto& own : units) all += own.size();
  EXPECT_EQ(all, 1000U);
}

TEST(ForkJoin, AThreadInALongUnitKeepsTheOthersWorking) {
  ForkJoin pool(2);
  std::atomic<int> others = 0;
  pool.for_each(100, [&](int unit, int) {
    if (unit != 0) {
      ++others;
      return;
    }
    for (int i = 0; i < 60'000 && others < 99; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    EXPECT_EQ(others, 99);
  });
}

}  // namespace
}  // namespace kvfs::model::cpu
