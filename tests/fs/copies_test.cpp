// A copy is a state: out of the mount and back in, by the tools people have.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <random>

#include "engine/sched/verbs.h"
#include "fs/caller_intent.h"
#include "tests/fs/mounted.h"

namespace kvfs::fs::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class Copies : public Mounted {
 protected:
  void SetUp() override {
    Mounted::SetUp();
    outside_ = fresh_directory("kvfs-copies");
    state_ = make_state("s", 6);
    do_job(state_ / "feed/a", std::string(600, 'x') + " and the end");
    do_job(state_ / "ask/q", "why");
  }
  void TearDown() override {
    Mounted::TearDown();
    std::filesystem::remove_all(outside_);
  }
  std::string out() const { return outside_.string(); }

  void shell(const std::string& script) {
    const auto [code, output] = run("set -e; O=" + out() + "; " + script, states());
    EXPECT_EQ(code, 0) << script << "\n" << output;
  }

  // The same state, file for file, and it goes on the same.
  void expect_copy(const std::string& name) {
    SCOPED_TRACE(name);
    EXPECT_EQ(run("diff -r s/kv " + name + "/kv && cmp s/state.json " + name +
                      "/state.json && cmp s/text " + name + "/text && cmp s/tokens.npy " + name +
                      "/tokens.npy",
                  states())
                  .output,
              "");
    EXPECT_EQ(root_of(name), root_of("s"));
    EXPECT_THAT(read_file(states() / name / "status"), Not(StartsWith("incomplete")));
    std::filesystem::create_directory(states() / "s/on");
    std::filesystem::create_directory(states() / name / "on");
    do_job(states() / "s/on/continue/go", "go on");
    do_job(states() / name / "on/continue/go", "go on");
    EXPECT_EQ(read_file(states() / name / "on/text"), read_file(states() / "s/on/text"));
    shell("rmdir s/on " + name + "/on");
  }

  std::string root_of(const std::string& name) {
    const auto id = sched::resolve(house_->house().store(), name);
    if (!id || !house_->house().store().state(*id)->version) return "none";
    return house_->house().version(*id).root.hex();
  }

  std::filesystem::path outside_, state_;
};

TEST_F(Copies, CpWithinTheMountSharesTheVersion) {
  shell("cp -r s copy");
  expect_copy("copy");
  const auto of = [&](const char* name) {
    store::Store& store = house_->house().store();
    return store.state(*sched::resolve(store, name))->version;
  };
  EXPECT_EQ(of("copy"), of("s"));  // no tensor was read
  EXPECT_EQ(read_file(states() / "copy/params/max_tokens"), "6\n");
  EXPECT_EQ(read_file(states() / "copy/replies/q"), read_file(state_ / "replies/q"));
}

TEST_F(Copies, OutAndBackIn) {
  shell("cp -r s $O/cp && cp -r $O/cp back-cp");
  expect_copy("back-cp");
  shell("cp -a s $O/cpa && cp -a $O/cpa back-cpa");
  expect_copy("back-cpa");
  shell("tar cf $O/s.tar s && mkdir back-tar && tar xf $O/s.tar -C back-tar --strip-components=1");
  expect_copy("back-tar");
  const auto report = house_->house().store().verify();
  EXPECT_THAT(report->problems, ::testing::IsEmpty());
}

// As `cp -r` writes: all of it anew, in the order in which a file system lists it.
void write_anew(const std::filesystem::path& from, const std::filesystem::path& to) {
  const std::string bytes = read_file(from);
  const int fd = ::open(to.c_str(), O_WRONLY | O_CREAT | O_EXCL, 0600);
  ASSERT_GE(fd, 0) << to << ": " << std::strerror(errno);
  EXPECT_EQ(::write(fd, bytes.data(), bytes.size()), std::ssize(bytes));
  EXPECT_EQ(::close(fd), 0) << to << ": " << std::strerror(errno);
}
void make_anew(const std::filesystem::path& directory) {
  ASSERT_EQ(::mkdir(directory.c_str(), 0700), 0) << directory << ": " << std::strerror(errno);
}
void write_data_anew(const std::filesystem::path& from, const std::filesystem::path& to) {
  for (const char* name : {"state.json", "text", "tokens.npy"}) write_anew(from / name, to / name);
  make_anew(to / "kv");
  for (const auto& layer : std::filesystem::directory_iterator(from / "kv"))
    write_anew(layer.path(), to / "kv" / layer.path().filename());
}

TEST_F(Copies, WhatComesAfterTheDataIsMadeAnewToo) {
  shell("mkdir s/child && cp -r s/child $O/ignored");
  do_job(states() / "s/child/continue/more", "more");
  shell("cp -r s $O/s && rmdir s/child");
  const std::filesystem::path from = outside_ / "s";
  const std::filesystem::path to = states() / "late";
  make_anew(to);
  write_data_anew(from, to);
  EXPECT_NE(root_of("late"), "none");
  for (const char* name : {"ask", "feed", "continue", "replies", "params"}) make_anew(to / name);
  for (const auto& param : std::filesystem::directory_iterator(from / "params"))
    write_anew(param.path(), to / "params" / param.path().filename());
  write_anew(from / "status", to / "status");
  make_anew(to / "child");  // a fork, until its own data is there
  make_anew(to / "child/params");
  write_data_anew(from / "child", to / "child");
  make_anew(to / "child/ask");
  EXPECT_EQ(read_file(to / "child/text"), read_file(from / "child/text"));
  EXPECT_NE(read_file(to / "child/text"), read_file(to / "text"));
  shell("rmdir late/child");
  expect_copy("late");
}

TEST_F(Copies, ASecondRsyncMovesNothing) {
  shell("rsync -a s/ $O/r/ && rsync -a $O/r/ back/");
  expect_copy("back");
  EXPECT_EQ(
      run("rsync -ain --no-times " + out() + "/r/ back/ | grep '^>f' || true", states()).output,
      "");
  EXPECT_EQ(run("rsync -ai " + out() + "/r/kv/ back/kv/ | grep '^>f' || true", states()).output,
            "");
}

// How a file server opens what it has looked up: by its descriptor, whatever its name stands for
// now.
int open_again(const std::filesystem::path& file, int flags) {
  const int held = ::open(file.c_str(), O_PATH);
  const int fd = ::open(("/proc/self/fd/" + std::to_string(held)).c_str(), flags);
  ::close(held);
  return fd;
}

TEST_F(Copies, AFileThatIsOpenedByItsDescriptorIsWrittenToo) {
  const std::string before = read_file(state_ / "text");
  int fd = open_again(state_ / "text", O_RDWR | O_CREAT);
  ASSERT_GE(fd, 0) << std::strerror(errno);
  ASSERT_EQ(::ftruncate(fd, 0), 0);
  ASSERT_EQ(::pwrite(fd, before.data(), before.size(), 0), std::ssize(before));
  EXPECT_EQ(::close(fd), 0);
  EXPECT_TRUE(eventually(
      [&] { return read_file(state_ / "status").find("incomplete") == std::string::npos; }));
  EXPECT_EQ(read_file(state_ / "text"), before);

  fd = open_again(state_ / "text", O_WRONLY);
  ASSERT_GE(fd, 0) << std::strerror(errno);
  ASSERT_EQ(::ftruncate(fd, 0), 0);
  ASSERT_EQ(::write(fd, "something else, and longer than what was there before", 53), 53);
  EXPECT_EQ(::close(fd), -1);  // it is not what the tokens say
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(read_file(state_ / "text"), before);
  EXPECT_EQ(std::filesystem::file_size(state_ / "text"), before.size());
}

TEST_F(Copies, WhereTheMountIsReExportedAnFsyncIsEnough) {
  shell("cp -r s $O/s");
  remount({"noblock"});
  std::filesystem::create_directories(states() / "new/kv");
  std::vector<int> kept_open;
  for (const auto& file : std::filesystem::recursive_directory_iterator(outside_ / "s")) {
    const auto name = file.path().lexically_relative(outside_ / "s");
    if (!file.is_regular_file() || (name.has_parent_path() && name.parent_path() != "kv") ||
        name == "status" || name == "ctl") {
      continue;
    }
    const std::string bytes = read_file(file.path());
    const int fd = ::open((states() / "new" / name).c_str(), O_RDWR | O_CREAT, 0600);
    ASSERT_GE(fd, 0) << name;
    ASSERT_EQ(::pwrite(fd, bytes.data(), bytes.size(), 0), std::ssize(bytes)) << name;
    EXPECT_EQ(::fsync(fd), 0) << name;
    kept_open.push_back(fd);
  }
  EXPECT_TRUE(eventually([&] { return root_of("new") == root_of("s"); }));
  for (const int fd : kept_open) ::close(fd);
  EXPECT_EQ(root_of("new"), root_of("s"));
}

TEST_F(Copies, FromASnapshotAndOverAnExistingState) {
  ASSERT_EQ(::mkdir((state_ / ".snap/v1").c_str(), 0777), 0);
  const auto other = make_state("other", 3);
  do_job(other / "feed/a", "something else");
  shell("cp -r s/.snap/v1/. other/");
  expect_copy("other");
  do_job(other / "feed/b", "more");
  shell("cp -r s $O/s && cp -r $O/s/. other/");
  expect_copy("other");
}

TEST_F(Copies, AnyOrderAnyOffsetAndTemporaryNames) {
  shell(R"(cp -r s $O/s && mkdir -p n/kv && cd $O/s
    for f in $(ls kv | sort -r); do
      dd if=kv/$f of=)" +
        states().string() + R"(/n/kv/.$f.part bs=1000 skip=1 seek=1 status=none
      dd if=kv/$f of=)" +
        states().string() + R"(/n/kv/.$f.part bs=1000 count=1 conv=notrunc status=none
      mv )" +
        states().string() + "/n/kv/.$f.part " + states().string() + R"(/n/kv/$f
    done
    cp tokens.npy )" +
        states().string() + R"(/n/.t
    mv )" +
        states().string() + "/n/.t " + states().string() + "/n/tokens.npy");
  EXPECT_THAT(read_file(states() / "n/status"), HasSubstr("incomplete: waiting for state.json\n"));
  EXPECT_EQ(write_file(states() / "n/ask/q", "now?"), EAGAIN);
  remount();
  shell("cp $O/s/params/* n/params/ && cp $O/s/state.json n/");
  expect_copy("n");
}

TEST_F(Copies, WhatIsMissingIsNamed) {
  shell("cp -r s $O/s && mkdir n && cp $O/s/state.json n/ && cp $O/s/tokens.npy n/");
  EXPECT_THAT(read_file(states() / "n/status"),
              HasSubstr("incomplete: waiting for kv/layer-000.safetensors\n"));
  EXPECT_EQ(::rmdir((states() / "n").c_str()), 0);
}

TEST_F(Copies, DamageNeverBecomesAState) {
  shell(
      "cp -r s $O/s && printf XYZ | dd of=$O/s/kv/layer-001.safetensors bs=1 seek=1000 "
      "conv=notrunc status=none");
  const auto [code, output] = run("cp -r " + out() + "/s n", states());
  EXPECT_NE(code, 0);
  EXPECT_THAT(output, HasSubstr("Invalid argument"));
  EXPECT_THAT(read_file(states() / "n/status"), HasSubstr("does not match the root"));
  EXPECT_EQ(root_of("n"), "none");
  shell("cp s/kv/layer-001.safetensors n/kv/");
  EXPECT_TRUE(eventually([&] { return root_of("n") == root_of("s"); }));
  shell("truncate -s 100 $O/s/kv/layer-000.safetensors");
  EXPECT_NE(run("cp -r " + out() + "/s m", states()).code, 0);
  EXPECT_THAT(read_file(states() / "m/status"), HasSubstr("kv/layer-000.safetensors"));
  for (const char* json : {"", "{", "[]", "{\"format\":1}"}) {
    shell("cp -r s $O/j && printf '" + std::string(json) + "' > $O/j/state.json");
    run("cp -r " + out() + "/j j", states());
    EXPECT_EQ(root_of("j"), "none") << json;
    shell("rm -r $O/j && rm -r j");
  }
}

TEST_F(Copies, TensorsWithoutARootBecomeAnEditedState) {
  shell(
      "cp -r s $O/s && python3 - $O/s/state.json <<'P'\nimport json,sys\np=sys.argv[1]; "
      "d=json.load(open(p)); "
      "del d['root']; json.dump(d,open(p,'w'))\nP\ncp -r $O/s n");
  EXPECT_THAT(read_file(states() / "n/state.json"), HasSubstr("\"edited\""));
  EXPECT_EQ(read_file(states() / "n/text"), read_file(state_ / "text"));
}

TEST_F(Copies, TextFollowsFromTheTokens) {
  const std::string text = read_file(state_ / "text");
  EXPECT_EQ(write_file(state_ / "text", "something else"), EINVAL);
  EXPECT_EQ(read_file(state_ / "text"), text);
  EXPECT_EQ(write_file(state_ / "text", text), 0);
  EXPECT_THAT(read_file(state_ / "status"), Not(HasSubstr("incomplete")));
}

TEST_F(Copies, ARemovedStagedFileIsTheStatesOwnAgain) {
  const std::string layer = read_file(state_ / "kv/layer-000.safetensors");
  ASSERT_EQ(write_file(state_ / "kv/layer-000.safetensors", "junk"), 0);
  EXPECT_EQ(read_file(state_ / "kv/layer-000.safetensors"), "junk");
  ASSERT_EQ(::unlink((state_ / "kv/layer-000.safetensors").c_str()), 0);
  EXPECT_TRUE(eventually([&] { return read_file(state_ / "kv/layer-000.safetensors") == layer; }));
}

// To who makes it without looking it is not there, and only the last name of the path.
TEST_F(Copies, ANewStatesDirectoriesGiveWayToWhoMakesThem) {
  const auto fresh = states() / "fresh";
  ASSERT_EQ(::mkdir(fresh.c_str(), 0777), 0);
  EXPECT_EQ(::mkdir((fresh / "ask").c_str(), 0777), 0);
  EXPECT_EQ(::mkdir((fresh / "feed/below").c_str(), 0777), -1);
  EXPECT_EQ(errno, EPERM);
  const int fd = ::open((fresh / "feed/prompt").c_str(), O_WRONLY | O_CREAT | O_EXCL, 0600);
  EXPECT_GE(fd, 0);
  ::close(fd);
  EXPECT_EQ(::mkdir((state_ / "ask").c_str(), 0777), -1);
  EXPECT_EQ(errno, EEXIST);
}

TEST(CallerIntent, WhoMakesANewNameSaysWhere) {
  const auto where = [](std::string_view line) { return new_path_of(line).value_or(0); };
  EXPECT_EQ(where("258 0xffffff9c 0x7f 0x1c0 0x0 0x0 0x0 0x7ffe 0x7f"), 0x7fU);
  EXPECT_EQ(where("257 0xffffff9c 0x7f 0xc1 0x180 0x0 0x0 0x7ffe 0x7f"), 0x7fU);
  EXPECT_EQ(where("257 0xffffff9c 0x7f 0x41 0x180 0x0 0x0 0x7ffe 0x7f"), 0U);
  EXPECT_EQ(where("262 0xffffff9c 0x7f 0xc1 0x180 0x0 0x0 0x7ffe 0x7f"), 0U);
  for (const char* none : {"running", "-1 0x7ffe 0x7f", "", "258"}) EXPECT_EQ(where(none), 0U);
}

}  // namespace
}  // namespace kvfs::fs::test
