// A mount in a temporary directory, on a store and a scheduler of its own: the fake model by
// default, which is as slow as a test wants it.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "fs/mount.h"
#include "tests/engine/sched/fake_model.h"
#include "tests/engine/sched/house.h"
#include "tests/fs/shell.h"

namespace kvfs::fs::test {

std::filesystem::path fresh_directory(const std::string& stem);

// Store, scheduler and mount, wired as the daemon wires them.
class MountedHouse {
 public:
  explicit MountedHouse(std::unique_ptr<sched::test::House> house,
                        std::vector<std::string> options = {});
  ~MountedHouse();

  void mount(const std::vector<std::string>& options);
  void unmount();
  Mount& mounted() { return *mount_; }
  sched::test::House& house() { return *house_; }
  const std::filesystem::path& root() const { return root_; }

 private:
  std::filesystem::path root_;
  std::unique_ptr<sched::test::House> house_;
  std::mutex mutex_;  // guards mount_ against the scheduler's listener
  std::unique_ptr<Mount> mount_;
  std::atomic<Mount*> listening_ = nullptr;
};

class Mounted : public ::testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;

  void remount(const std::vector<std::string>& options = {});

  std::filesystem::path root() const { return house_->root(); }
  std::filesystem::path states() const { return root() / "states"; }
  // A new state, answering `tokens` tokens at temperature 0 and raw.
  std::filesystem::path make_state(const std::string& name, int tokens = 8);
  // The line of a job in the state's status; "" when there is none.
  static std::string status_of(const std::filesystem::path& state, const std::string& job);
  static bool is_done(const std::filesystem::path& state, const std::string& job);
  // Drops a prompt and waits until the job is done.
  static void do_job(const std::filesystem::path& file, const std::string& prompt);

  sched::test::FakeControls controls_;
  std::unique_ptr<MountedHouse> house_;
};

}  // namespace kvfs::fs::test
