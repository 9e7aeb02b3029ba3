// Mounting, what is in the way, and going away.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <fstream>
#include <future>

#include "fs/mount_point.h"
#include "tests/fs/mounted.h"

namespace kvfs::fs::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;
using ::testing::HasSubstr;

class Lifecycle : public Mounted {
 protected:
  Result<std::unique_ptr<Mount>> mount_on(const std::filesystem::path& where,
                                          std::vector<std::string> options = {}) {
    auto& house = house_->house();
    return Mount::start(house.store(), house.scheduler(), house.catalog(),
                        {.mount_point = where, .fuse_options = std::move(options)});
  }
  void expect_refused(const std::filesystem::path& where, ErrorCode code, const char* word) {
    const auto mount = mount_on(where);
    ASSERT_FALSE(mount);
    EXPECT_EQ(mount.error().code, code) << mount.error().message();
    EXPECT_THAT(mount.error().message(), HasSubstr(word));
    EXPECT_FALSE(mount.error().way_out.empty());
  }
};

// What a daemon that was killed leaves: a mount whose connection is gone.
void leave_stale_mount(const std::filesystem::path& where) {
  const int fd = ::open("/dev/fuse", O_RDWR | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  const std::string options = "fd=" + std::to_string(fd) + ",rootmode=40000,user_id=0,group_id=0";
  ASSERT_EQ(::mount("kvfs", where.c_str(), "fuse.kvfs", MS_NOSUID | MS_NODEV, options.c_str()), 0);
  ::close(fd);
}

TEST_F(Lifecycle, StoppingAnswersParkedReadersWithinASecond) {
  controls_.step_delay_us = 300000;
  const auto state = make_state("s", 4000);
  ASSERT_EQ(write_file(state / "ask/q", "go"), 0);
  std::vector<std::unique_ptr<Program>> readers;
  for (int i = 0; i < 4; ++i) readers.push_back(std::make_unique<Program>("cat replies/q", state));
  ASSERT_TRUE(eventually([&] {
    return std::ranges::all_of(readers, [](auto& reader) { return !reader->so_far().empty(); });
  }));
  const auto start = steady_clock::now();
  house_->mounted().stop();
  EXPECT_LT(steady_clock::now() - start, milliseconds(1000));
  for (auto& reader : readers) EXPECT_NE(reader->wait(milliseconds(1000)).code, -1);
  EXPECT_TRUE(std::filesystem::is_empty(root()));
}

TEST_F(Lifecycle, StoppingABusyMountDetachesIt) {
  const auto state = make_state("s");
  Program inside("exec 3< status; cd ask; sleep 30", state);
  const int open = ::open((state / "params/seed").c_str(), O_RDONLY);
  ASSERT_GE(open, 0);
  const auto start = steady_clock::now();
  house_->mounted().stop();
  EXPECT_LT(steady_clock::now() - start, milliseconds(1000));
  EXPECT_TRUE(std::filesystem::is_empty(root()));
  char buffer[8];
  EXPECT_EQ(::read(open, buffer, sizeof buffer), -1);
  ::close(open);
}

TEST_F(Lifecycle, AMountCanBeStoppedTwiceAndStartedAgain) {
  house_->mounted().stop();
  house_->mounted().stop();
  house_->mount({});
  EXPECT_TRUE(std::filesystem::exists(root() / "README"));
}

TEST_F(Lifecycle, SomebodyElsesUmountIsNoticed) {
  std::promise<void> told;
  house_->mounted().on_unmounted([&] { told.set_value(); });
  ASSERT_EQ(::umount2(root().c_str(), 0), 0);
  EXPECT_EQ(told.get_future().wait_for(std::chrono::seconds(2)), std::future_status::ready);
}

TEST_F(Lifecycle, AStaleMountIsCleanedUp) {
  const auto where = fresh_directory("kvfs-stale");
  leave_stale_mount(where);
  struct stat st {};
  ASSERT_EQ(::stat(where.c_str(), &st), -1);
  ASSERT_EQ(errno, ENOTCONN);
  {
    const auto mount = mount_on(where);
    ASSERT_TRUE(mount) << mount.error().message();
    EXPECT_TRUE(std::filesystem::exists(where / "README"));
  }
  EXPECT_EQ(::stat(where.c_str(), &st), 0);
  std::filesystem::remove(where);
}

TEST_F(Lifecycle, MountPointsThatWillNotDoAreRefusedWithTheWayOut) {
  const auto where = fresh_directory("kvfs-point");
  expect_refused(where / "missing", ErrorCode::kNotFound, "mkdir");
  std::ofstream(where / "file") << "x";
  expect_refused(where / "file", ErrorCode::kInvalid, "not a directory");
  expect_refused(where, ErrorCode::kNotEmpty, "not empty");
  expect_refused(root(), ErrorCode::kBusy, "mounted there already");
  const auto foreign = mount_on(where / "missing", {"spool_delay=soon"});
  ASSERT_FALSE(foreign);
  EXPECT_EQ(foreign.error().code, ErrorCode::kInvalid);
  std::filesystem::remove_all(where);
}

TEST_F(Lifecycle, AnOptionThatFuseDoesNotKnowIsRefused) {
  const auto where = fresh_directory("kvfs-point");
  const auto mount = mount_on(where, {"no_such_option"});
  ASSERT_FALSE(mount);
  EXPECT_EQ(mount.error().code, ErrorCode::kInvalid);
  std::filesystem::remove(where);
}

TEST_F(Lifecycle, ReadAheadIsRaised) {
  struct stat st {};
  ASSERT_EQ(::stat(root().c_str(), &st), 0);
  const std::filesystem::path setting = "/sys/class/bdi/" + std::to_string(major(st.st_dev)) + ":" +
                                        std::to_string(minor(st.st_dev)) + "/read_ahead_kb";
  if (::access(setting.c_str(), W_OK) != 0) GTEST_SKIP() << setting << " cannot be written here";
  EXPECT_EQ(read_file(setting), "1024\n");
}

}  // namespace
}  // namespace kvfs::fs::test
