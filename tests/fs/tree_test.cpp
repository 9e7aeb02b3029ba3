// What is there, how large it is, and how directories come and go.
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "engine/store/write_transaction.h"
#include "tests/fs/mounted.h"

namespace kvfs::fs::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Tree = Mounted;

std::vector<std::string> names(const std::filesystem::path& directory) {
  std::vector<std::string> out;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    out.push_back(entry.path().filename());
  }
  std::ranges::sort(out);
  return out;
}

struct stat stat_of(const std::filesystem::path& path) {
  struct stat st {};
  if (::stat(path.c_str(), &st) != 0) ADD_FAILURE() << path << ": " << strerror(errno);
  return st;
}

TEST_F(Tree, TheRootHasWhatThePageSays) {
  EXPECT_THAT(names(root()), ElementsAre("README", "bundles", "models", "states", "status"));
  EXPECT_THAT(names(root() / "models"), ElementsAre("fake"));
  EXPECT_THAT(names(root() / "models/fake"),
              ElementsAre("config.json", "fingerprint", "info.json"));
  EXPECT_THAT(read_file(root() / "README"), HasSubstr("cd " + root().string() + "/states"));
  EXPECT_THAT(read_file(root() / "status"), HasSubstr("prefilled_tokens"));
}

TEST_F(Tree, AStateWithoutTokensListsNoDerivedFiles) {
  std::filesystem::create_directory(states() / "s");
  EXPECT_THAT(names(states() / "s"),
              ElementsAre("ask", "continue", "ctl", "feed", "params", "replies", "status"));
  EXPECT_FALSE(std::filesystem::exists(states() / "s/text"));
}

TEST_F(Tree, AStateWithTokensListsThem) {
  const auto state = make_state("s");
  do_job(state / "feed/a", "hello world");
  EXPECT_THAT(names(state), ElementsAre("ask", "continue", "ctl", "feed", "kv", "params", "replies",
                                        "state.json", "status", "text", "tokens.npy"));
  EXPECT_FALSE(names(state / "kv").empty());
  EXPECT_EQ(names(state / "kv").front(), "layer-000.safetensors");
  EXPECT_EQ(read_file(state / "text"), "hello world");
}

TEST_F(Tree, SizesAreExact) {
  const auto state = make_state("s");
  do_job(state / "continue/a", "a longer text, so that there is something to count");
  const auto [code, output] =
      run("find . -type f | while read -r f; do a=$(stat -c %s $f); b=$(cat $f | wc -c); "
          "[ $a = $b ] || echo \"$f: stat $a, cat $b\"; done; find . -type f | wc -l",
          root());
  EXPECT_EQ(code, 0);
  EXPECT_THAT(output, ::testing::Not(HasSubstr(": stat"))) << output;
  EXPECT_GT(std::stoi(output), 20);
  const auto st = stat_of(state / "tokens.npy");
  EXPECT_EQ(st.st_blocks, (st.st_size + 511) / 512);
}

TEST_F(Tree, FreeSpaceIsTheStoresDisks) {
  struct statvfs disk {};
  struct statvfs mount {};
  ASSERT_EQ(::statvfs(std::filesystem::temp_directory_path().c_str(), &disk), 0);
  ASSERT_EQ(::statvfs(root().c_str(), &mount), 0);
  const auto free_bytes = [](const struct statvfs& s) {
    return static_cast<double>(s.f_bavail) * static_cast<double>(s.f_frsize);
  };
  EXPECT_NEAR(free_bytes(mount), free_bytes(disk), 1e9);  // others write to it, too
}

TEST_F(Tree, StatesAreTheirOwnersAlone) {
  std::filesystem::create_directory(states() / "s");
  EXPECT_EQ(stat_of(states() / "s").st_mode, static_cast<mode_t>(S_IFDIR | 0700));
  EXPECT_EQ(stat_of(states() / "s/ctl").st_mode, static_cast<mode_t>(S_IFREG | 0600));
  EXPECT_EQ(stat_of(states() / "s/status").st_mode, static_cast<mode_t>(S_IFREG | 0600));
  EXPECT_EQ(stat_of(states()).st_mode, static_cast<mode_t>(S_IFDIR | 01777));
}

TEST_F(Tree, ModeAndOwnerOfAStateAreItsFilesToo) {
  const auto state = make_state("s");
  ASSERT_EQ(run("chmod 750 s && chown 12:34 s", states()).code, 0);
  EXPECT_TRUE(eventually([&] { return stat_of(state / "params").st_gid == 34; }));
  EXPECT_EQ(stat_of(state).st_mode, static_cast<mode_t>(S_IFDIR | 0750));
  EXPECT_EQ(stat_of(state / "params/seed").st_mode, static_cast<mode_t>(S_IFREG | 0640));
  EXPECT_EQ(stat_of(state / "params/seed").st_uid, 12U);
}

TEST_F(Tree, OthersCannotLookIntoAState) {
  remount({"allow_other"});
  make_state("s");
  ASSERT_EQ(::chmod(root().c_str(), 0755) == 0 || errno == EPERM, true);
  const auto [code, output] =
      run("setpriv --reuid=65534 --regid=65534 --clear-groups cat states/s/status", root());
  EXPECT_NE(code, 0);
  EXPECT_THAT(output, HasSubstr("Permission denied"));
}

TEST_F(Tree, AChildIsAForkOfItsParent) {
  const auto state = make_state("s", 4);
  do_job(state / "feed/a", "known to both");
  std::filesystem::create_directory(state / "child");
  EXPECT_EQ(read_file(state / "child/text"), "known to both");
  EXPECT_EQ(read_file(state / "child/params/max_tokens"), "4\n");
  EXPECT_EQ(read_file(state / "child/kv/layer-000.safetensors"),
            read_file(state / "kv/layer-000.safetensors"));
  EXPECT_NE(stat_of(state / "child/text").st_ino, stat_of(state / "text").st_ino);
  do_job(state / "child/feed/b", " and more");
  EXPECT_EQ(read_file(state / "child/text"), "known to both and more");
  EXPECT_EQ(read_file(state / "text"), "known to both");
}

TEST_F(Tree, RmdirDropsAStateButNotItsChildren) {
  const auto state = make_state("s");
  do_job(state / "feed/a", "text");
  std::filesystem::create_directory(state / "child");
  EXPECT_EQ(::rmdir(state.c_str()), -1);
  EXPECT_EQ(errno, ENOTEMPTY);
  EXPECT_EQ(::rmdir((state / "child").c_str()), 0);
  EXPECT_EQ(::rmdir(state.c_str()), 0);
  EXPECT_FALSE(std::filesystem::exists(state));
  EXPECT_TRUE(names(states()).empty());
}

TEST_F(Tree, RmRemovesAWholeTreeOfStates) {
  const auto state = make_state("s");
  do_job(state / "feed/a", "text");
  std::filesystem::create_directories(state / "child/grandchild");
  const auto [code, output] = run("rm -r s", states());
  EXPECT_EQ(code, 0) << output;
  EXPECT_TRUE(names(states()).empty());
}

TEST_F(Tree, AnUnlinkedFileOfTheDaemonIsThereAgainAfterAMoment) {
  const auto state = make_state("s");
  do_job(state / "feed/a", "text");
  ASSERT_EQ(::unlink((state / "text").c_str()), 0);
  ASSERT_EQ(::unlink((state / "params/temperature").c_str()), 0);
  ASSERT_EQ(::rmdir((state / "kv").c_str()), 0);
  EXPECT_FALSE(std::filesystem::exists(state / "text"));
  EXPECT_FALSE(std::filesystem::exists(state / "kv"));
  EXPECT_TRUE(eventually([&] { return std::filesystem::exists(state / "text"); }));
  EXPECT_TRUE(eventually([&] { return std::filesystem::exists(state / "kv"); }));
  EXPECT_EQ(read_file(state / "text"), "text");
  EXPECT_EQ(read_file(state / "params/temperature"), "0\n");
}

TEST_F(Tree, StatesAreRenamedAndMovedAmongStates) {
  const auto state = make_state("a");
  do_job(state / "feed/x", "text");
  make_state("b");
  ASSERT_EQ(::rename((states() / "a").c_str(), (states() / "c").c_str()), 0);
  EXPECT_EQ(read_file(states() / "c/text"), "text");
  ASSERT_EQ(::rename((states() / "c").c_str(), (states() / "b/inside").c_str()), 0);
  EXPECT_EQ(read_file(states() / "b/inside/text"), "text");
  EXPECT_EQ(::rename((states() / "b").c_str(), (states() / "b/inside/loop").c_str()), -1);
  EXPECT_EQ(::rename((states() / "b").c_str(), (root() / "b").c_str()), -1);
  EXPECT_EQ(errno, EXDEV);
}

TEST_F(Tree, UsualToolsGoThroughIt) {
  const auto state = make_state("s");
  do_job(state / "continue/a", "needle");
  const auto copy = fresh_directory("kvfs-copy");
  EXPECT_EQ(run("find . > /dev/null && ls -lR . > /dev/null && du -s . > /dev/null", root()).code,
            0);
  EXPECT_EQ(run("grep -r needle s/text", states()).code, 0);
  EXPECT_EQ(run("df . > /dev/null && stat -f . > /dev/null", root()).code, 0);
  const auto [code, output] = run("cp -r s " + copy.string() + "/ && diff s/text " + copy.string() +
                                      "/s/text && diff -r s/kv " + copy.string() +
                                      "/s/kv && tar cf " + copy.string() + "/s.tar s",
                                  states());
  EXPECT_EQ(code, 0) << output;
  std::filesystem::remove_all(copy);
}

TEST_F(Tree, InodeNumbersSurviveARemount) {
  const auto state = make_state("s");
  do_job(state / "continue/a", "text");
  const std::string listing = "find . -printf '%i %p\\n' | grep -v replies/ | sort";
  const auto before = run(listing, root());
  remount();
  EXPECT_EQ(run(listing, root()).output, before.output);
}

TEST_F(Tree, ManyStatesAreAllListed) {
  const auto made = house_->house().store().write([](store::WriteTransaction& write) -> Status {
    for (int i = 0; i < 3000; ++i) {
      store::StateRecord record;
      record.name = "state-" + std::to_string(i);
      KVFS_TRY(write.create_state(record));
    }
    return {};
  });
  ASSERT_TRUE(made);
  EXPECT_EQ(names(states()).size(), 3000U);
  EXPECT_EQ(run("ls -l states | grep -c state-", root()).output, "3000\n");
}

}  // namespace
}  // namespace kvfs::fs::test
