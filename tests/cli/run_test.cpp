#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "cli/verb.h"

namespace kvfs::cli {
namespace {

struct Outcome {
  int code = 0;
  std::string out;
  std::string err;
};

Outcome kvfs(std::vector<std::string> words) {
  words.insert(words.begin(), {"kvfs", "--socket", "/nowhere/kvfs.sock"});
  std::vector<const char*> argv;
  for (const std::string& word : words) argv.push_back(word.c_str());
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  Outcome outcome;
  outcome.code = run(static_cast<int>(argv.size()), argv.data());
  outcome.out = testing::internal::GetCapturedStdout();
  outcome.err = testing::internal::GetCapturedStderr();
  return outcome;
}

TEST(Run, EveryVerbHasHelp) {
  std::set<std::string> names;
  for (const VerbEntry& entry : verbs()) {
    const Outcome outcome = kvfs({entry.name, "--help"});
    EXPECT_EQ(outcome.code, 0) << entry.name;
    EXPECT_NE(outcome.out.find(entry.summary), std::string::npos) << entry.name;
    names.insert(entry.name);
  }
  for (const char* name : {"mount", "umount", "status", "ls", "show", "new", "set", "feed", "ask",
                           "continue", "step", "cancel", "fork", "rm", "models", "compare"}) {
    EXPECT_TRUE(names.contains(name)) << name;
  }
}

TEST(Run, WrongWordsAreUsageErrors) {
  for (const auto& words :
       std::vector<std::vector<std::string>>{{},
                                             {"dance"},
                                             {"ask"},
                                             {"ask", "s", "p", "--temprature", "1"},
                                             {"step", "s", "-n", "x"},
                                             {"fork", "a"},
                                             {"set", "s"}}) {
    const Outcome outcome = kvfs(words);
    EXPECT_EQ(outcome.code, 2) << (words.empty() ? "nothing" : words[0]);
    EXPECT_TRUE(outcome.err.starts_with("kvfs: command line: ")) << outcome.err;
  }
}

TEST(Run, WithoutADaemonVerbsFailInOneSentence) {
  for (const auto& words : std::vector<std::vector<std::string>>{{"status"},
                                                                 {"ls"},
                                                                 {"show", "s"},
                                                                 {"new", "s"},
                                                                 {"ask", "s", "why?"},
                                                                 {"rm", "s"},
                                                                 {"umount"},
                                                                 {"models", "--json"}}) {
    const Outcome outcome = kvfs(words);
    EXPECT_EQ(outcome.code, 1) << words[0];
    EXPECT_EQ(outcome.err,
              "kvfs: daemon at /nowhere/kvfs.sock: none is running; start one with kvfs mount, or "
              "name its socket with --socket or KVFS_SOCKET\n")
        << words[0];
    EXPECT_EQ(outcome.out, "") << words[0];
  }
}

}  // namespace
}  // namespace kvfs::cli
