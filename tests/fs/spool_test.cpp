// Files on their way to a job: editors, scratch names, handles, names that are reused.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <unistd.h>

#include "tests/fs/mounted.h"

namespace kvfs::fs::test {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

using Spool = Mounted;

TEST_F(Spool, ASpooledFileIsListedUntilItsJobEnds) {
  controls_.step_delay_us = 20000;
  const auto state = make_state("s", 40);
  ASSERT_EQ(write_file(state / "ask/q", "prompt"), 0);
  EXPECT_EQ(run("ls ask", state).output, "q\n");
  EXPECT_EQ(read_file(state / "ask/q"), "prompt");
  EXPECT_EQ(write_file(state / "ask/q", "another"), EBUSY);
  EXPECT_EQ(run("cat replies/q > /dev/null; sleep 0.3; ls ask", state).output, "");
}

TEST_F(Spool, AFileThatIsNeverWrittenVanishes) {
  const auto state = make_state("s");
  ASSERT_EQ(run("touch ask/t", state).code, 0);
  EXPECT_TRUE(std::filesystem::exists(state / "ask/t"));
  EXPECT_TRUE(eventually([&] { return !std::filesystem::exists(state / "ask/t"); }));
  EXPECT_EQ(read_file(state / "status"), "");
}

TEST_F(Spool, AFileThatIsOpenStaysThereUnwritten) {
  const auto state = make_state("s", 3);
  const auto [code, output] =
      run("exec 3>>ask/t; sleep 1.5; printf late >&3; exec 3>&-; cat replies/t", state);
  EXPECT_EQ(code, 0) << output;
  EXPECT_EQ(output.size(), 3U);
}

TEST_F(Spool, ScratchNamesNeverStartAJob) {
  const auto state = make_state("s");
  for (const char* name : {".q.swp", "q~", "q.tmp", ".nfs01", "4913"}) {
    ASSERT_EQ(write_file(state / "ask" / name, "text"), 0);
    EXPECT_EQ(read_file(state / "ask" / name), "text");
  }
  std::this_thread::sleep_for(milliseconds(200));
  EXPECT_EQ(read_file(state / "status"), "");
  EXPECT_EQ(run("rm ask/.q.swp ask/q~ ask/q.tmp ask/.nfs01 ask/4913; ls -A ask", state).output, "");
}

TEST_F(Spool, RenamingIntoPlaceSubmits) {
  const auto state = make_state("s", 4);
  ASSERT_EQ(write_file(state / "ask/.q.1234", "prompt"), 0);
  ASSERT_EQ(::rename((state / "ask/.q.1234").c_str(), (state / "ask/q").c_str()), 0);
  EXPECT_EQ(run("cat replies/q", state).output.size(), 4U);
}

TEST_F(Spool, RenamingFromAnotherSpoolSubmits) {
  const auto one = make_state("one", 4);
  const auto two = make_state("two", 4);
  ASSERT_EQ(write_file(one / "feed/.x", "prompt"), 0);
  ASSERT_EQ(::rename((one / "feed/.x").c_str(), (two / "ask/q").c_str()), 0);
  EXPECT_EQ(run("cat replies/q", two).output.size(), 4U);
  EXPECT_FALSE(std::filesystem::exists(one / "feed/.x"));
}

TEST_F(Spool, ARefusedRenameLeavesTheScratchFileWhereItWas) {
  const auto state = make_state("s");
  ASSERT_EQ(write_file(state / "ask/.q", "\xff\xfe"), 0);
  EXPECT_EQ(::rename((state / "ask/.q").c_str(), (state / "ask/q").c_str()), -1);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_TRUE(std::filesystem::exists(state / "ask/.q"));
  EXPECT_FALSE(std::filesystem::exists(state / "ask/q"));
  EXPECT_THAT(status_of(state, "q"), HasSubstr("UTF-8"));
}

TEST_F(Spool, FromOutsideMvCopies) {
  const auto state = make_state("s", 4);
  const auto outside = fresh_directory("kvfs-outside");
  ASSERT_EQ(write_file(outside / "q", "prompt"), 0);
  EXPECT_EQ(run("mv " + (outside / "q").string() + " ask/q && cat replies/q", state).output.size(),
            4U);
  std::filesystem::remove_all(outside);
}

TEST_F(Spool, ReusingANameReplacesTheReply) {
  const auto state = make_state("s", 4);
  do_job(state / "ask/q", "first");
  const auto first = read_file(state / "replies/q");
  const auto [code, output] = run("printf 'something else' > ask/q; cat replies/q", state);
  EXPECT_EQ(code, 0);
  EXPECT_EQ(output.size(), 4U);
  EXPECT_NE(output, first);
}

TEST_F(Spool, AJobStartsWhenTheLastWriterIsGone) {
  const auto state = make_state("s", 4);
  const auto path = state / "continue/c";
  const int one = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  const int two = ::open(path.c_str(), O_WRONLY | O_APPEND);
  ASSERT_GE(one, 0);
  ASSERT_GE(two, 0);
  EXPECT_EQ(::write(one, "abc", 3), 3);
  EXPECT_EQ(::write(two, "def", 3), 3);
  EXPECT_EQ(::close(one), 0);
  std::this_thread::sleep_for(milliseconds(200));
  EXPECT_THAT(status_of(state, "c"), HasSubstr("queued"));
  EXPECT_EQ(::write(two, "ghi", 3), 3);
  EXPECT_EQ(::close(two), 0);
  ASSERT_TRUE(eventually([&] { return is_done(state, "c"); }));
  EXPECT_THAT(read_file(state / "text"), ::testing::StartsWith("abcdefghi"));
}

TEST_F(Spool, ShellsThatCloseCopiesOfTheDescriptorAreUnderstood) {
  const auto state = make_state("s", 4);
  EXPECT_EQ(run("(true; printf ab; printf cd) > continue/c && cat replies/c", state).code, 0);
  ASSERT_TRUE(eventually([&] { return is_done(state, "c"); }));
  EXPECT_THAT(read_file(state / "text"), ::testing::StartsWith("abcd"));
}

TEST_F(Spool, SpoolsAreReadTruncatedAndWrittenAnywhere) {
  const auto state = make_state("s");
  const auto path = (state / "ask/.x").string();
  ASSERT_EQ(write_file(path, "0123456789"), 0);
  const int fd = ::open(path.c_str(), O_RDWR);
  ASSERT_GE(fd, 0);
  EXPECT_EQ(::pwrite(fd, "ab", 2, 4), 2);
  char buffer[16] = {};
  EXPECT_EQ(::pread(fd, buffer, sizeof buffer, 0), 10);
  EXPECT_STREQ(buffer, "0123ab6789");
  EXPECT_EQ(::ftruncate(fd, 6), 0);
  EXPECT_EQ(::fsync(fd), 0);
  EXPECT_EQ(::close(fd), 0);
  EXPECT_EQ(read_file(path), "0123ab");
  EXPECT_EQ(std::filesystem::file_size(path), 6U);
}

TEST_F(Spool, ADelayGivesWritersTimeToComeBack) {
  remount({"spool_delay=400ms"});
  const auto state = make_state("s", 4);
  ASSERT_EQ(write_file(state / "continue/c", "abc"), 0);
  std::this_thread::sleep_for(milliseconds(100));
  ASSERT_EQ(write_file(state / "continue/c", "def", O_WRONLY | O_APPEND), 0);
  ASSERT_TRUE(eventually([&] { return is_done(state, "c"); }));
  EXPECT_THAT(read_file(state / "text"), ::testing::StartsWith("abcdef"));
}

// As an NFS server does: its client has closed the file, it has not.
TEST_F(Spool, WhereTheMountIsReExportedAnFsyncEndsAPrompt) {
  remount({"noblock", "spool_delay=200ms"});
  const auto state = make_state("s", 3);
  const int fd = ::open((state / "ask/q").c_str(), O_RDWR | O_CREAT | O_EXCL, 0600);
  ASSERT_GE(fd, 0);
  ASSERT_EQ(::pwrite(fd, "half ", 5, 0), 5);
  EXPECT_EQ(::fsync(fd), 0);
  ASSERT_EQ(::pwrite(fd, "a prompt", 8, 5), 8);
  EXPECT_EQ(::fsync(fd), 0);
  EXPECT_TRUE(eventually([&] { return is_done(state, "q"); }));
  ::close(fd);
  EXPECT_EQ(read_file(state / "replies/q").size(), 3U);
  EXPECT_THAT(status_of(state, "q"), HasSubstr("13 read"));
}

TEST_F(Spool, JobsOfBeforeARemountAreListedAndCanBeRemoved) {
  controls_.step_delay_us = 20000;
  const auto state = make_state("s", 4000);
  ASSERT_EQ(write_file(state / "ask/q", "prompt"), 0);
  remount();
  EXPECT_EQ(run("ls ask && cat ask/q", state).output, "q\nprompt");
  EXPECT_EQ(run("rm ask/q && ls ask", state).output, "");
  EXPECT_THAT(status_of(state, "q"), ::testing::Not(HasSubstr("running")));
}

TEST_F(Spool, EditorsSaveThroughTemporaryNames) {
  const auto state = make_state("s", 4);
  // sed -i: a temporary file beside it, renamed over it.
  ASSERT_EQ(run("sed -i s/0/0.5/ params/temperature", state).code, 0);
  EXPECT_EQ(read_file(state / "params/temperature"), "0.5\n");
  // vim's way with a backup: q1 → q1~, write q1 anew, drop q1~; and its swap file.
  const auto [code, output] =
      run("echo swap > params/.seed.swp; mv params/seed params/seed~; echo 42 > params/seed; "
          "rm params/seed~ params/.seed.swp; cat params/seed; ls -A params | grep -c seed",
          state);
  EXPECT_EQ(output, "42\n1\n");
  const auto prompt =
      run("echo swap > ask/.q.swp; echo test > ask/4913; rm ask/4913; printf hello > ask/q; "
          "rm ask/.q.swp; cat replies/q",
          state);
  EXPECT_EQ(prompt.output.size(), 4U) << prompt.output;
}

}  // namespace
}  // namespace kvfs::fs::test
