#include "engine/model/cpu/host.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <thread>

namespace kvfs::model::cpu {
namespace {

TEST(PhysicalCores, TheFirstThreadOfEachStandsForIt) {
  const auto siblings = [](int cpu) {  // 0 and 4 share a core, 1 and 5, …
    return std::to_string(cpu % 4) + "," + std::to_string(cpu % 4 + 4);
  };
  EXPECT_EQ(first_of_each_core({0, 1, 2, 3, 4, 5, 6, 7}, siblings), (std::vector{0, 1, 2, 3}));
  EXPECT_EQ(first_of_each_core({5, 6, 1}, siblings), (std::vector{5, 6}));
  EXPECT_EQ(first_of_each_core({3, 9}, [](int) { return ""; }), (std::vector{3, 9}));
}

TEST(PhysicalCores, AThreadThatKeepsToThemHasOneForEach) {
  int kept = 0;
  std::jthread([&] {
    keep_to_physical_cores();
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    ASSERT_EQ(sched_getaffinity(0, sizeof allowed, &allowed), 0);
    kept = CPU_COUNT(&allowed);
  }).join();
  EXPECT_GE(kept, physical_cores());  // a quota may allow fewer
}

}  // namespace
}  // namespace kvfs::model::cpu
