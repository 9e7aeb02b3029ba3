// What directories list, while the kernel keeps listings and nobody keeps a directory open.
#include <dirent.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <set>

#include "engine/sched/verbs.h"
#include "tests/fs/mounted.h"

namespace kvfs::fs::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

using Listings = Mounted;

std::string listed(const std::filesystem::path& directory) {
  return run("ls -A", directory).output;
}

std::int64_t modified(const std::filesystem::path& path) {
  struct stat st {};
  if (::stat(path.c_str(), &st) != 0) ADD_FAILURE() << path << ": " << strerror(errno);
  return st.st_mtim.tv_sec;
}

TEST_F(Listings, AJobThatNobodyDroppedHereIsListedAtOnce) {
  controls_.step_delay_us = 20000;
  const auto state = make_state("s", 20);
  for (int i = 0; i < 2; ++i) {  // from the kernel's memory the second time
    EXPECT_EQ(listed(state / "ask"), "");
    EXPECT_EQ(listed(state / "replies"), "");
  }
  auto& house = house_->house();
  const auto id = sched::resolve(house.store(), "s");
  ASSERT_TRUE(id);
  const std::string job = house.submit(house.submission(*id, store::JobKind::kAsk, "Why?"));
  EXPECT_EQ(listed(state / "ask"), job + "\n");
  EXPECT_EQ(listed(state / "replies"), job + "\n");
  house.wait(*id, job);
  EXPECT_TRUE(eventually([&] { return listed(state / "ask").empty(); }));
  EXPECT_EQ(listed(state / "replies"), job + "\n");
}

TEST_F(Listings, AReplyIsListedWhenItsPromptIsClosed) {
  controls_.step_delay_us = 20000;
  const auto state = make_state("s", 20);
  EXPECT_EQ(run("ls -A replies; ls -A replies; echo hi > ask/q; ls replies", state).output, "q\n");
}

TEST_F(Listings, AHiddenNameIsListedAgainAfterAMoment) {
  const auto state = make_state("s");
  EXPECT_THAT(listed(state / "params"), HasSubstr("seed"));
  ASSERT_EQ(::unlink((state / "params/seed").c_str()), 0);
  EXPECT_THAT(listed(state / "params"), Not(HasSubstr("seed")));
  EXPECT_THAT(listed(state / "params"), Not(HasSubstr("seed")));
  EXPECT_TRUE(
      eventually([&] { return listed(state / "params").find("seed") != std::string::npos; }));
}

// As small programs do it, which read a few names, remove them, and read on.
TEST_F(Listings, NamesThatGoMeanwhileMakeNobodyMissOthers) {
  const auto state = make_state("s");
  ASSERT_EQ(run("for i in $(seq 300); do : > f$i; done", state).code, 0);
  const int fd = ::open(state.c_str(), O_RDONLY | O_DIRECTORY);
  ASSERT_GE(fd, 0);
  std::multiset<std::string> seen;
  alignas(dirent64) char buffer[512];
  for (long got; (got = ::syscall(SYS_getdents64, fd, buffer, sizeof buffer)) > 0;) {
    for (long at = 0; at < got;) {
      const auto* entry = reinterpret_cast<const dirent64*>(buffer + at);
      at += entry->d_reclen;
      const std::string name = entry->d_name;
      if (name[0] != 'f' || name == "feed") continue;
      seen.insert(name);
      EXPECT_EQ(::unlink((state / name).c_str()), 0) << name;
    }
  }
  ::close(fd);
  EXPECT_EQ(seen.size(), 300U);
  EXPECT_EQ(std::set<std::string>(seen.begin(), seen.end()).size(), 300U);
  EXPECT_THAT(listed(state), Not(HasSubstr("f1")));
}

TEST_F(Listings, APlaceInAListingIsFoundAgain) {
  const auto state = make_state("s");
  DIR* const directory = ::opendir((state / "params").c_str());
  ASSERT_NE(directory, nullptr);
  for (int i = 0; i < 5; ++i) ASSERT_NE(::readdir(directory), nullptr);
  const long place = ::telldir(directory);
  const std::string sixth = ::readdir(directory)->d_name;
  while (::readdir(directory) != nullptr) {
  }
  ::seekdir(directory, place);
  EXPECT_EQ(::readdir(directory)->d_name, sixth);
  ::closedir(directory);
}

TEST_F(Listings, AStateKeepsTheTimeItWasGivenUntilItAdvances) {
  const auto state = make_state("s");
  do_job(state / "feed/a", "text");
  ASSERT_EQ(run("touch -d @1000000000 .", state).code, 0);
  EXPECT_EQ(modified(state), 1000000000);
  remount();
  EXPECT_EQ(modified(state), 1000000000);
  ASSERT_EQ(::mkdir((state / "child").c_str(), 0700), 0);
  EXPECT_GT(modified(state), 1000000000);
  ASSERT_EQ(run("touch -d @1000000000 .", state).code, 0);
  do_job(state / "feed/b", "more");
  EXPECT_TRUE(eventually([&] { return modified(state) > 1000000000; }));
}

}  // namespace
}  // namespace kvfs::fs::test
