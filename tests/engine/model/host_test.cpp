#include "engine/model/cpu/host.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

namespace kvfs::model::cpu {
namespace {

namespace fs = std::filesystem;
constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;

class Host : public ::testing::Test {
 protected:
  Host() {
    put(files_.proc / "meminfo",
        "MemTotal:       16777216 kB\nMemFree:  1024 kB\n"
        "MemAvailable:   12582912 kB\n");
  }
  ~Host() override { fs::remove_all(root_); }
  static void put(const fs::path& path, const std::string& text) {
    fs::create_directories(path.parent_path());
    std::ofstream(path) << text;
  }
  void in_group(const std::string& path) {
    put(files_.proc / "self/cgroup", "4:memory:/old\n0::" + path + "\n");
  }

  fs::path root_ = fs::temp_directory_path() / ("kvfs-host-" + std::to_string(::getpid()));
  HostFiles files_{.proc = root_ / "proc", .groups = root_ / "groups"};
};

TEST_F(Host, WithoutGroupsTheMachineHasWhatItHas) {
  EXPECT_EQ(memory_total(files_), 16 * kGiB);
  EXPECT_EQ(memory_available(files_), 12 * kGiB);
  EXPECT_GE(physical_cores(files_), 1);
}

TEST_F(Host, ItsGroupsLimitIsItsMemory) {
  in_group("/system.slice/kvfsd.service");
  const fs::path group = files_.groups / "system.slice/kvfsd.service";
  put(group / "memory.max", "4294967296\n");
  put(group / "memory.current", "3221225472\n");
  put(group / "memory.stat", "anon 1073741824\nactive_file 1073741824\ninactive_file 1073741824\n");
  EXPECT_EQ(memory_total(files_), 4 * kGiB);
  // Two of the three in use are cached files.
  EXPECT_EQ(memory_available(files_), 3 * kGiB);
}

TEST_F(Host, ALimitOfAGroupAroundItBindsToo) {
  in_group("/system.slice/kvfsd.service");
  put(files_.groups / "system.slice/kvfsd.service/memory.max", "max\n");
  put(files_.groups / "system.slice/memory.max", "2147483648\n");
  put(files_.groups / "system.slice/memory.current", "1073741824\n");
  EXPECT_EQ(memory_total(files_), 2 * kGiB);
  EXPECT_EQ(memory_available(files_), kGiB);
}

TEST_F(Host, AContainersOwnRootBindsWhereTheGroupsPathIsTheHosts) {
  in_group("/docker/0123456789abcdef");
  put(files_.groups / "memory.max", "1073741824\n");
  put(files_.groups / "cpu.max", "100000 100000\n");
  EXPECT_EQ(memory_total(files_), kGiB);
  EXPECT_EQ(physical_cores(files_), 1);
}

TEST_F(Host, MoreInUseThanTheLimitLeavesNothing) {
  in_group("/");
  put(files_.groups / "memory.max", "1073741824\n");
  put(files_.groups / "memory.current", "2147483648\n");
  EXPECT_EQ(memory_available(files_), 0U);
}

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
