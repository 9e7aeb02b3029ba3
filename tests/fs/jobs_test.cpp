// Prompts in, replies out: streaming, parking, interrupts, step and cancel.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/fs/mounted.h"

namespace kvfs::fs::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class Jobs : public Mounted {
 protected:
  void slow(int step_us = 20000) { controls_.step_delay_us = step_us; }
};

TEST_F(Jobs, AnAskIsAnsweredAndTheStateStaysAsItWas) {
  const auto state = make_state("s", 8);
  do_job(state / "feed/note", "some text");
  const auto [code, output] = run("echo 'why?' > ask/q1 && cat replies/q1", state);
  EXPECT_EQ(code, 0) << output;
  EXPECT_EQ(output.size(), 8U);
  EXPECT_EQ(read_file(state / "text"), "some text");
}

TEST_F(Jobs, AContinueBecomesPartOfTheState) {
  const auto state = make_state("s", 8);
  const auto [code, output] = run("printf 'once' > continue/c && cat replies/c", state);
  EXPECT_EQ(code, 0) << output;
  ASSERT_TRUE(eventually([&] { return is_done(state, "c"); }));
  EXPECT_EQ(read_file(state / "text"), "once" + output);
}

TEST_F(Jobs, AReplyStreamsWhileItIsGenerated) {
  slow();
  const auto state = make_state("s", 40);
  ASSERT_EQ(write_file(state / "ask/q", "go"), 0);
  Program first("cat replies/q", state);
  Program second("cat replies/q", state);
  ASSERT_TRUE(eventually([&] { return !first.so_far().empty() && !second.so_far().empty(); }));
  EXPECT_LT(first.so_far().size(), 40U);
  EXPECT_FALSE(is_done(state, "q"));
  const Outcome one = first.wait();
  const Outcome two = second.wait();
  EXPECT_EQ(one.code, 0);
  EXPECT_EQ(one.output.size(), 40U);
  EXPECT_EQ(one.output, two.output);
  EXPECT_EQ(read_file(state / "replies/q"), one.output);
}

TEST_F(Jobs, AGrowingReplyShowsItsTrueSize) {
  slow();
  const auto state = make_state("s", 60);
  ASSERT_EQ(write_file(state / "ask/q", "go"), 0);
  struct stat st {};
  off_t before = 0;
  ASSERT_TRUE(eventually(
      [&] { return ::stat((state / "replies/q").c_str(), &st) == 0 && st.st_size > before; }));
  before = st.st_size;
  EXPECT_LT(before, 60);
  ASSERT_TRUE(eventually(
      [&] { return ::stat((state / "replies/q").c_str(), &st) == 0 && st.st_size > before; }));
  const auto tail = run("timeout 5 head -c 60 replies/q", state);
  EXPECT_EQ(tail.output.size(), 60U);
  EXPECT_EQ(run("test $(wc -c < replies/q) = $(stat -c %s replies/q)", state).code, 0);
}

TEST_F(Jobs, AnInterruptedReaderDetachesAtOnce) {
  slow(300000);
  const auto state = make_state("s", 30);
  ASSERT_EQ(write_file(state / "ask/q", "go"), 0);
  Program reader("exec cat replies/q", state);
  ASSERT_TRUE(eventually([&] { return !reader.so_far().empty(); }));
  const auto start = steady_clock::now();
  reader.signal(SIGINT);
  EXPECT_EQ(reader.wait().code, 128 + SIGINT);
  EXPECT_LT(steady_clock::now() - start, milliseconds(250));
  ASSERT_TRUE(eventually([&] { return status_of(state, "q").starts_with("q running"); }));
  ASSERT_EQ(::unlink((state / "ask/q").c_str()), 0);
}

TEST_F(Jobs, ManyParkedReadersHoldNoWorker) {
  slow(500000);
  const auto state = make_state("s", 20);
  ASSERT_EQ(write_file(state / "ask/q", "go"), 0);
  std::vector<std::unique_ptr<Program>> readers;
  for (int i = 0; i < 24; ++i) readers.push_back(std::make_unique<Program>("cat replies/q", state));
  ASSERT_TRUE(eventually([&] {
    return std::ranges::all_of(readers, [](auto& reader) { return !reader->so_far().empty(); });
  }));
  const auto start = steady_clock::now();
  EXPECT_THAT(read_file(root() / "status"), HasSubstr("queue"));
  EXPECT_LT(steady_clock::now() - start, milliseconds(400));
  ASSERT_EQ(::unlink((state / "ask/q").c_str()), 0);
}

TEST_F(Jobs, UnlinkingTheSpooledFileCancels) {
  slow();
  const auto state = make_state("s", 4000);
  ASSERT_EQ(write_file(state / "ask/q", "go"), 0);
  Program reader("cat replies/q", state);
  ASSERT_TRUE(eventually([&] { return !reader.so_far().empty(); }));
  ASSERT_EQ(::unlink((state / "ask/q").c_str()), 0);
  EXPECT_FALSE(std::filesystem::exists(state / "ask/q"));
  EXPECT_NE(reader.wait(std::chrono::seconds(10)).code, -1);
  EXPECT_THAT(status_of(state, "q"), ::testing::Not(HasSubstr("running")));
  // Its name is free.
  controls_.step_delay_us = 0;
  EXPECT_EQ(write_file(state / "params/max_tokens", "3"), 0);
  do_job(state / "ask/q", "again");
  EXPECT_EQ(read_file(state / "replies/q").size(), 3U);
}

TEST_F(Jobs, CtlCancelsAndSteps) {
  const auto state = make_state("s", 4);
  do_job(state / "continue/c", "abc");
  const auto before = read_file(state / "text");
  ASSERT_EQ(write_file(state / "ctl", "step 5\n"), 0);
  EXPECT_THAT(read_file(state / "status"), StartsWith("step-"));
  ASSERT_TRUE(eventually([&] { return read_file(state / "text").size() == before.size() + 5; }));
  EXPECT_THAT(read_file(state / "text"), StartsWith(before));

  slow();
  ASSERT_EQ(write_file(state / "params/max_tokens", "4000"), 0);
  ASSERT_EQ(write_file(state / "ask/q", "go"), 0);
  ASSERT_EQ(write_file(state / "ctl", "cancel q\n"), 0);
  ASSERT_TRUE(eventually([&] {
    return !status_of(state, "q").starts_with("q running") &&
           !status_of(state, "q").starts_with("q queued");
  }));
  EXPECT_EQ(read_file(state / "ctl"), "");
}

TEST_F(Jobs, EveryLineOfAWriteToCtlCounts) {
  const auto state = make_state("s", 4);
  do_job(state / "continue/c", "abc");
  const auto before = read_file(state / "text").size();
  const int fd = ::open((state / "ctl").c_str(), O_WRONLY);
  ASSERT_GE(fd, 0);
  // The second line is refused: the write goes as far as the first.
  EXPECT_EQ(::write(fd, "step 2\nstep x\nstep 3\n", 21), 7);
  EXPECT_EQ(::write(fd, "step x\nstep 3\n", 14), -1);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(::write(fd, "st", 2), 2);
  EXPECT_EQ(::write(fd, "ep 3\n", 5), 5);
  EXPECT_EQ(::write(fd, "step 4", 6), 6);  // without a newline: the close takes it
  EXPECT_EQ(::close(fd), 0);
  EXPECT_TRUE(eventually([&] { return read_file(state / "text").size() == before + 9; }));
}

TEST_F(Jobs, NoblockReadsEndAtThePresentSize) {
  remount({"noblock", "spool_delay=0s"});
  slow();
  const auto state = make_state("s", 400);
  ASSERT_EQ(write_file(state / "ask/q", "go"), 0);
  ASSERT_TRUE(eventually([&] { return std::filesystem::file_size(state / "replies/q") > 0; }));
  const auto part = run("cat replies/q", state);
  EXPECT_EQ(part.code, 0);
  EXPECT_LT(part.output.size(), 400U);
  ASSERT_EQ(::unlink((state / "ask/q").c_str()), 0);
}

TEST_F(Jobs, AFailedJobsReplyReadsEio) {
  const auto state = make_state("s", 8);
  controls_.decode_fails_after = 'x';
  controls_.prefill_fails_at = '!';
  ASSERT_EQ(write_file(state / "ask/q", "this breaks!"), 0);
  const auto [code, output] = run("cat replies/q", state);
  EXPECT_NE(code, 0);
  EXPECT_THAT(output, HasSubstr("Input/output error"));
  EXPECT_THAT(status_of(state, "q"), StartsWith("q error: "));
  EXPECT_TRUE(eventually([&] { return !std::filesystem::exists(state / "ask/q"); }));
}

TEST_F(Jobs, CpOfAGrowingReplyTakesAllOfIt) {
  slow();
  const auto state = make_state("s", 40);
  ASSERT_EQ(write_file(state / "ask/q", "go"), 0);
  ASSERT_TRUE(eventually([&] { return std::filesystem::file_size(state / "replies/q") > 0; }));
  const auto copy = fresh_directory("kvfs-copy");
  EXPECT_EQ(run("cp replies/q " + (copy / "q").string(), state).code, 0);
  EXPECT_EQ(read_file(copy / "q").size(), 40U);
  // Within the mount, where the kernel could copy by itself what it believes the size to be.
  ASSERT_EQ(write_file(state / "ask/r", "go on"), 0);
  ASSERT_TRUE(eventually([&] { return std::filesystem::file_size(state / "replies/r") > 0; }));
  std::filesystem::create_directory(states() / "t");
  EXPECT_EQ(run("cp s/replies/r t/feed/.scratch && wc -c < t/feed/.scratch", states()).output,
            "40\n");
  std::filesystem::remove_all(copy);
}

}  // namespace
}  // namespace kvfs::fs::test
