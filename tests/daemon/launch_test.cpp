#include "daemon/launch.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>

namespace kvfs::daemon {
namespace {

// Runs detach() in a process of its own, body in the daemon; returns what the parent gave.
int exit_code_of(const std::function<void(Launch&)>& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    auto launched = Launch::detach();
    if (const auto* code = std::get_if<ExitCode>(&launched)) ::_exit(*code);
    body(std::get<Launch>(launched));
    ::_exit(77);  // the daemon's own code, which nobody sees
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  return WEXITSTATUS(status);
}

TEST(Launch, TheParentReturnsZeroWhenTheDaemonIsReady) {
  EXPECT_EQ(exit_code_of([](Launch& launch) { launch.ready(); }), 0);
}

TEST(Launch, TheParentPassesTheDaemonsExitCodeOn) {
  EXPECT_EQ(
      exit_code_of([](Launch& launch) {
        launch.failed({{ErrorCode::kBusy, "store /s", "in use", "stop the other"}, kExitStore});
      }),
      kExitStore);
  EXPECT_EQ(
      exit_code_of([](Launch& launch) {
        launch.failed({{ErrorCode::kIo, "mount /m", "not empty", "choose another"}, kExitMount});
      }),
      kExitMount);
}

TEST(Launch, ADaemonThatDiesBeforeItsWordIsAFailure) {
  EXPECT_EQ(exit_code_of([](Launch&) { ::_exit(0); }), kExitFailure);
  EXPECT_EQ(exit_code_of([](Launch&) { ::raise(SIGKILL); }), kExitFailure);
}

TEST(Launch, InTheForegroundFailureGivesItsCode) {
  Launch launch = Launch::in_foreground();
  launch.ready();
  EXPECT_EQ(
      launch.failed({{ErrorCode::kNotFound, "model m", "missing", "name another"}, kExitModel}),
      kExitModel);
}

}  // namespace
}  // namespace kvfs::daemon
