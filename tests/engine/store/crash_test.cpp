// kill -9 at random moments: what was acknowledged is there, and nothing half is.
#include <csignal>
#include <latch>
#include <map>
#include <sstream>
#include <thread>

#include <sys/wait.h>

#include "tests/engine/store/fixture.h"

namespace kvfs::store {
namespace {

constexpr int kKills = 30;

// Runs the child for a while, kills it, and returns what it said.
// The while begins with the child, so that opening is hit too, or with the first word it says.
std::string run_and_kill(const std::filesystem::path& directory, int first, bool let_it_speak,
                         unsigned microseconds) {
  int pipe_fds[2];
  EXPECT_EQ(pipe(pipe_fds), 0);
  const std::string first_text = std::to_string(first);
  const pid_t child = fork();  // no store is open here
  if (child == 0) {
    dup2(pipe_fds[1], STDOUT_FILENO);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    execl(KVFS_CRASH_CHILD, KVFS_CRASH_CHILD, directory.c_str(), first_text.c_str(), nullptr);
    _exit(127);
  }
  close(pipe_fds[1]);
  std::latch begun(1);
  if (!let_it_speak) begun.count_down();
  std::jthread killer([&] {
    begun.wait();
    std::this_thread::sleep_for(std::chrono::microseconds(microseconds));
    kill(child, SIGKILL);
  });
  std::string said;
  char buffer[4096];
  for (ssize_t n; (n = read(pipe_fds[0], buffer, sizeof buffer)) > 0;) {
    if (said.empty() && let_it_speak) begun.count_down();
    said.append(buffer, static_cast<std::size_t>(n));
  }
  close(pipe_fds[0]);
  if (said.empty() && let_it_speak) begun.count_down();  // it ended by itself
  killer.join();
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status)) << "the child ended by itself, with " << WEXITSTATUS(status);
  return said.substr(0, said.rfind('\n') + 1);
}

TEST(Crash, NothingAcknowledgedIsLostByThirtyKills) {
  TempDirectory directory;
  std::map<std::string, std::string> acknowledged;
  std::minstd_rand random(std::random_device{}());
  int next = 1;
  for (int kill = 0; kill < kKills; ++kill) {
    std::istringstream said(run_and_kill(directory.path(), next, kill % 2 == 0,
                                         static_cast<unsigned>(random() % 200'000)));
    for (std::string sign, name, root; said >> sign >> name;) {
      if (sign == "+" && said >> root) {
        acknowledged[name] = root;
        next = std::max(next, std::atoi(name.c_str() + 1) + 1);
      } else {
        acknowledged.erase(name);  // it may be gone or not
      }
    }
    auto store = Store::open({.directory = directory.path(), .map_bytes = std::uint64_t{1} << 32});
    ASSERT_TRUE(store) << store.error().message();
    const auto report = (*store)->verify();
    ASSERT_TRUE(report) << report.error().message();
    for (const std::string& problem : report->problems) ADD_FAILURE() << problem;
    for (const auto& [name, root] : acknowledged) {
      const auto entry = (*store)->lookup({}, name);
      ASSERT_TRUE(entry) << name << " was acknowledged: " << entry.error().message();
      const auto version = (*store)->version((*store)->state(entry->state)->version);
      ASSERT_TRUE(version) << version.error().message();
      EXPECT_EQ(version->root.hex(), root);
    }
    // Created but never acknowledged: its name would be taken for the next child.
    next += 1;
  }
  EXPECT_GE(acknowledged.size(), static_cast<std::size_t>(kKills / 2)) << "the child hardly ran";
}

}  // namespace
}  // namespace kvfs::store
