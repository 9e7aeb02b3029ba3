// Each refusal: its errno where it can be known, one line that says why, nothing changed.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/fs/mounted.h"

namespace kvfs::fs::test {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

using Refused = Mounted;

TEST_F(Refused, AnEmptyPrompt) {
  const auto state = make_state("s");
  EXPECT_EQ(run(": > ask/q", state).code, 0);  // nothing says so before the release
  EXPECT_TRUE(eventually([&] { return status_of(state, "q").starts_with("q error: "); }));
  EXPECT_THAT(status_of(state, "q"), HasSubstr("empty"));
  EXPECT_FALSE(std::filesystem::exists(state / "ask/q"));
}

TEST_F(Refused, BytesThatAreNotUtf8) {
  const auto state = make_state("s");
  EXPECT_EQ(write_file(state / "feed/q", "caf\xe9"), EINVAL);
  EXPECT_THAT(status_of(state, "q"), StartsWith("q error: "));
  EXPECT_THAT(status_of(state, "q"), HasSubstr("UTF-8"));
  EXPECT_TRUE(eventually([&] { return !std::filesystem::exists(state / "feed/q"); }));
  EXPECT_NE(run("cat replies/q", state).code, 0);
}

TEST_F(Refused, MoreTokensThanTheContextLeaves) {
  const auto state = make_state("s");
  EXPECT_EQ(write_file(state / "feed/q", std::string(sched::test::kContext + 100, 'a')), EFBIG);
  EXPECT_THAT(status_of(state, "q"), StartsWith("q error: "));
  EXPECT_FALSE(std::filesystem::exists(state / "text"));
}

TEST_F(Refused, AHundredMegabytes) {
  const auto state = make_state("s");
  const auto [code, output] = run("head -c 100000000 /dev/zero | tr '\\0' a > feed/q", state);
  EXPECT_THAT(output, HasSubstr("File too large"));
  EXPECT_TRUE(eventually([&] { return status_of(state, "q").starts_with("q error: "); }));
  EXPECT_TRUE(eventually([&] { return !std::filesystem::exists(state / "feed/q"); }));
  EXPECT_FALSE(std::filesystem::exists(state / "text"));
}

TEST_F(Refused, AModelThatIsNotThere) {
  const auto state = make_state("s");
  EXPECT_EQ(write_file(state / "params/model", "no-such-model"), ENOENT);
  EXPECT_THAT(read_file(state / "status"), HasSubstr("no-such-model"));
  EXPECT_EQ(write_file(state / "ask/q", "hello"), 0);
}

TEST_F(Refused, CommandsThatAreNone) {
  const auto state = make_state("s");
  for (const char* line :
       {"dance\n", "step\n", "step 0\n", "step -3\n", "step 1 2\n", "cancel\n"}) {
    EXPECT_EQ(write_file(state / "ctl", line), EINVAL) << line;
  }
  EXPECT_EQ(write_file(state / "ctl", "cancel nobody\n"), ENOENT);
  EXPECT_EQ(write_file(state / "ctl", "step 3\n"), EINVAL);  // nothing to go on from
  EXPECT_THAT(read_file(state / "status"), StartsWith("ctl error: "));
}

TEST_F(Refused, WritingWhatTheDaemonMakes) {
  const auto state = make_state("s");
  do_job(state / "feed/a", "text");
  const std::string reply = read_file(state / "replies/a");
  EXPECT_EQ(write_file(state / "text", "x"), EINVAL);  // it follows from the tokens
  EXPECT_EQ(write_file(state / "replies/a", "x"), 0);  // as a copy would: it stays what it is
  EXPECT_EQ(read_file(state / "replies/a"), reply);
  EXPECT_EQ(write_file(root() / "README", "x"), EPERM);
  EXPECT_EQ(write_file(root() / "new", "x"), EPERM);
  EXPECT_EQ(::link((state / "text").c_str(), (states() / "link").c_str()), -1);
  EXPECT_EQ(errno, EPERM);
  EXPECT_EQ(read_file(state / "text"), "text");
}

TEST_F(Refused, NamesThatAreTaken) {
  make_state("s");
  EXPECT_EQ(::mkdir((states() / "s").c_str(), 0700), -1);
  EXPECT_EQ(errno, EEXIST);
  EXPECT_EQ(::mkdir((states() / "s/text").c_str(), 0700), -1);
  EXPECT_EQ(errno, EEXIST);
  EXPECT_EQ(::mkdir((states() / "s/ask/dir").c_str(), 0700), -1);
  EXPECT_EQ(errno, EPERM);
  EXPECT_EQ(::mkdir((root() / "dir").c_str(), 0700), -1);
  EXPECT_EQ(errno, EPERM);
}

TEST_F(Refused, WhatIsRemovedWhileItIsOpenIsStale) {
  make_state("s");
  const int directory = ::open((states() / "s/ask").c_str(), O_RDONLY | O_DIRECTORY);
  ASSERT_GE(directory, 0);
  ASSERT_EQ(::rmdir((states() / "s").c_str()), 0);
  EXPECT_EQ(::openat(directory, "q", O_WRONLY | O_CREAT, 0600), -1);
  EXPECT_EQ(::close(directory), 0);
}

}  // namespace
}  // namespace kvfs::fs::test
