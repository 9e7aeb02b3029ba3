// .snap/NAME: what a state knew, kept under a name.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/fs/mounted.h"

namespace kvfs::fs::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

using Snapshots = Mounted;

int mkdir_at(const std::filesystem::path& path) {
  return ::mkdir(path.c_str(), 0777) == 0 ? 0 : errno;
}
int rmdir_at(const std::filesystem::path& path) { return ::rmdir(path.c_str()) == 0 ? 0 : errno; }

TEST_F(Snapshots, ASnapshotKeepsWhatTheStateKnew) {
  const auto state = make_state("s", 2);
  do_job(state / "feed/a", "first");
  const std::string layer = read_file(state / "kv/layer-000.safetensors");
  ASSERT_EQ(mkdir_at(state / ".snap/v1"), 0);
  do_job(state / "feed/b", " second");
  ASSERT_TRUE(house_->house().store().collect());
  EXPECT_EQ(read_file(state / ".snap/v1/text"), "first");
  EXPECT_EQ(read_file(state / ".snap/v1/kv/layer-000.safetensors"), layer);
  EXPECT_EQ(read_file(state / "text"), "first second");
  remount();
  EXPECT_EQ(read_file(state / ".snap/v1/text"), "first");
}

TEST_F(Snapshots, TheyAreReachedByPathAndListedOnlyWhereAsked) {
  const auto state = make_state("s", 2);
  do_job(state / "feed/a", "text");
  ASSERT_EQ(mkdir_at(state / ".snap/v1"), 0);
  EXPECT_THAT(run("ls -a s; ls -a s/.snap", states()).output, Not(HasSubstr(".snap")));
  EXPECT_EQ(run("ls s/.snap", states()).output, "v1\n");
  EXPECT_EQ(run("ls s/.snap/v1", states()).output, "kv\nparams\nstate.json\ntext\ntokens.npy\n");
  remount({"snapdir"});
  EXPECT_THAT(run("ls -a s", states()).output, HasSubstr(".snap\n"));
}

TEST_F(Snapshots, NothingChangesInOne) {
  const auto state = make_state("s", 2);
  do_job(state / "feed/a", "text");
  ASSERT_EQ(write_file(state / "note", "mine"), 0);
  ASSERT_EQ(mkdir_at(state / ".snap/v1"), 0);
  const auto snap = state / ".snap/v1";
  EXPECT_EQ(mkdir_at(snap / "child"), EPERM);
  EXPECT_EQ(mkdir_at(snap / ".snap/nested"), ENOENT);
  EXPECT_EQ(write_file(snap / "new", "x"), EPERM);
  EXPECT_EQ(write_file(snap / "note", "x"), EPERM);
  EXPECT_EQ(write_file(snap / "params/seed", "1"), EPERM);
  EXPECT_EQ(::unlink((snap / "text").c_str()), -1);
  EXPECT_EQ(::unlink((snap / "note").c_str()), -1);
  EXPECT_EQ(::truncate((snap / "note").c_str(), 0), -1);
  EXPECT_EQ(::chmod(snap.c_str(), 0777), -1);
  ASSERT_EQ(write_file(state / "note", "changed"), 0);
  EXPECT_EQ(read_file(snap / "note"), "mine");
  EXPECT_EQ(read_file(snap / "text"), "text");
}

TEST_F(Snapshots, TheyAreRenamedAndDropped) {
  const auto state = make_state("s", 2);
  const auto other = make_state("o", 2);
  do_job(state / "feed/a", "text");
  ASSERT_EQ(mkdir_at(state / ".snap/a"), 0);
  EXPECT_EQ(mkdir_at(state / ".snap/a"), EEXIST);
  ASSERT_EQ(::rename((state / ".snap/a").c_str(), (state / ".snap/b").c_str()), 0);
  EXPECT_EQ(read_file(state / ".snap/b/text"), "text");
  EXPECT_EQ(::rename((state / ".snap/b").c_str(), (other / ".snap/b").c_str()), -1);
  EXPECT_EQ(errno, EXDEV);
  EXPECT_EQ(rmdir_at(state), ENOTEMPTY);
  EXPECT_EQ(run("rm -r s", states()).code, 1);
  EXPECT_EQ(rmdir_at(state / ".snap/b"), 0);
  EXPECT_EQ(rmdir_at(state / ".snap"), EPERM);
  EXPECT_EQ(rmdir_at(state), 0);
}

TEST_F(Snapshots, AStateGoesBackByItsCtl) {
  const auto state = make_state("s", 2);
  do_job(state / "feed/a", "one two");
  ASSERT_EQ(mkdir_at(state / ".snap/before"), 0);
  do_job(state / "feed/b", " three");
  ASSERT_EQ(write_file(state / "ctl", "rollback 3\n"), 0);
  EXPECT_EQ(read_file(state / "text"), "one");
  ASSERT_EQ(write_file(state / "ctl", "rollback @before\n"), 0);
  EXPECT_EQ(read_file(state / "text"), "one two");
  EXPECT_EQ(write_file(state / "ctl", "rollback 100\n"), EINVAL);
  EXPECT_THAT(read_file(state / "status"), HasSubstr("the state has 7 tokens"));
  EXPECT_EQ(write_file(state / "ctl", "rollback @nowhere\n"), ENOENT);
  ASSERT_EQ(write_file(state / "ctl", "rollback 0\n"), 0);
  EXPECT_FALSE(std::filesystem::exists(state / "text"));
}

TEST_F(Snapshots, APinnedStateIsNotRemoved) {
  const auto state = make_state("s", 2);
  ASSERT_EQ(write_file(state / "ctl", "pin\n"), 0);
  EXPECT_EQ(rmdir_at(state), EPERM);
  EXPECT_EQ(run("rm -r s", states()).code, 1);
  remount();
  EXPECT_EQ(rmdir_at(state), EPERM);
  ASSERT_EQ(write_file(state / "ctl", "unpin\n"), 0);
  EXPECT_EQ(rmdir_at(state), 0);
}

}  // namespace
}  // namespace kvfs::fs::test
