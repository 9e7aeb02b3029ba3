// A state advances: who opened a file before keeps what it was, who looks after `done` sees the
// new.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <future>

#include "engine/sched/verbs.h"
#include "tests/fs/mounted.h"

namespace kvfs::fs::test {
namespace {

using Versions = Mounted;

TEST_F(Versions, NewContentsAreThereAsSoonAsDoneIsSaid) {
  const auto state = make_state("s", 2);
  std::string text;
  for (int i = 0; i < 20; ++i) {
    const std::string name = "f" + std::to_string(i);
    const std::string piece = "piece " + std::to_string(i) + "; ";
    do_job(state / "feed" / name, piece);
    text += piece;
    ASSERT_EQ(read_file(state / "text"), text);
    struct stat st {};
    ASSERT_EQ(::stat((state / "text").c_str(), &st), 0);
    ASSERT_EQ(static_cast<std::size_t>(st.st_size), text.size());
    ASSERT_EQ(read_file(state / "tokens.npy").size(),
              std::filesystem::file_size(state / "tokens.npy"));
  }
}

TEST_F(Versions, AnOpenFileKeepsShowingItsVersion) {
  const auto state = make_state("s", 2);
  do_job(state / "feed/a", "first");
  const std::string layer = "kv/layer-000.safetensors";
  const std::string old_layer = read_file(state / layer);
  const int text = ::open((state / "text").c_str(), O_RDONLY);
  const int kv = ::open((state / layer).c_str(), O_RDONLY);
  ASSERT_GE(text, 0);
  ASSERT_GE(kv, 0);
  do_job(state / "feed/b", " second");
  ASSERT_TRUE(house_->house().store().collect());
  EXPECT_EQ(read_file(state / "text"), "first second");
  EXPECT_NE(read_file(state / layer), old_layer);

  char buffer[64] = {};
  EXPECT_EQ(::pread(text, buffer, sizeof buffer, 0), 5);
  EXPECT_STREQ(buffer, "first");
  std::string now(old_layer.size() + 1, '\0');
  ASSERT_EQ(::pread(kv, now.data(), now.size(), 0), static_cast<ssize_t>(old_layer.size()));
  now.resize(old_layer.size());
  EXPECT_EQ(now, old_layer);
  ::close(text);
  ::close(kv);
}

TEST_F(Versions, EachVersionHasItsOwnInode) {
  const auto state = make_state("s", 2);
  do_job(state / "feed/a", "first");
  struct stat before {};
  struct stat after {};
  ASSERT_EQ(::stat((state / "text").c_str(), &before), 0);
  do_job(state / "feed/b", " second");
  ASSERT_EQ(::stat((state / "text").c_str(), &after), 0);
  EXPECT_NE(before.st_ino, after.st_ino);
  EXPECT_GT(after.st_mtim.tv_sec * 1000000000 + after.st_mtim.tv_nsec,
            before.st_mtim.tv_sec * 1000000000 + before.st_mtim.tv_nsec);
}

TEST_F(Versions, DataFilesCanBeMapped) {
  const auto state = make_state("s", 2);
  do_job(state / "feed/a", "mapped");
  const int fd = ::open((state / "text").c_str(), O_RDONLY);
  ASSERT_GE(fd, 0);
  void* map = ::mmap(nullptr, 6, PROT_READ, MAP_SHARED, fd, 0);
  ASSERT_NE(map, MAP_FAILED);
  EXPECT_EQ(std::string(static_cast<const char*>(map), 6), "mapped");
  ::munmap(map, 6);
  ::close(fd);
}

TEST_F(Versions, WhatChangedPastTheMountIsSeenOnceItWasSaid) {
  const auto state = make_state("s", 2);
  do_job(state / "feed/a", "text");
  const auto id = sched::resolve(house_->house().store(), "s");
  ASSERT_TRUE(id);
  std::promise<Status> renamed;
  sched::rename_state(house_->house().store(), *id, {}, "t",
                      [&](const Status& status) { renamed.set_value(status); });
  ASSERT_TRUE(renamed.get_future().get());
  std::promise<void> told;
  house_->mounted().state_changed(*id, [&] { told.set_value(); });
  told.get_future().wait();
  EXPECT_FALSE(std::filesystem::exists(state));
  EXPECT_EQ(read_file(states() / "t/text"), "text");
}

// A removal holds the kernel's lock of the directory that an advance wants to tell the kernel
// about.
TEST_F(Versions, RemovingAStateThatAdvancesBlocksNobody) {
  controls_.step_delay_us = 1000;
  for (int i = 0; i < 20; ++i) {
    const auto state = make_state("s" + std::to_string(i), 50);
    do_job(state / "feed/a", "text");
    read_file(state / "text");
    ASSERT_EQ(write_file(state / "continue/c", "go"), 0);
    std::this_thread::sleep_for(std::chrono::milliseconds(5 * i));
    const auto start = std::chrono::steady_clock::now();
    ASSERT_EQ(::rmdir(state.c_str()), 0);
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(1500));
  }
}

}  // namespace
}  // namespace kvfs::fs::test
