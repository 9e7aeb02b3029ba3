// What directories list, while the kernel keeps listings and nobody keeps a directory open.
#include <dirent.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <future>
#include <set>

#include "engine/sched/verbs.h"
#include "tests/fs/mounted.h"

namespace kvfs::fs::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class Listings : public Mounted {
 protected:
  store::Store& store() { return house_->house().store(); }

  // As the HTTP server does it: when it answers, the mount has been told.
  void told(StateId state) {
    std::promise<void> heard;
    house_->mounted().state_changed(state, [&] { heard.set_value(); });
    heard.get_future().wait();
  }
  StateId created(StateId parent, const std::string& name) {
    std::promise<Result<StateId>> made;
    sched::create_state(store(), parent, name, {}, 0700, {},
                        [&](Result<StateId> id) { made.set_value(std::move(id)); });
    const auto id = made.get_future().get();
    EXPECT_TRUE(id);
    told(*id);
    return *id;
  }
  void renamed(StateId state, StateId parent, const std::string& name) {
    std::promise<bool> done;
    sched::rename_state(store(), state, parent, name,
                        [&](const Status& status) { done.set_value(status.has_value()); });
    EXPECT_TRUE(done.get_future().get());
    told(state);
  }
  void removed(StateId state) {
    std::promise<bool> done;
    sched::remove_state(store(), house_->house().scheduler(), state,
                        [&](const Status& status) { done.set_value(status.has_value()); });
    EXPECT_TRUE(done.get_future().get());
    told(state);
  }
};

std::string listed(const std::filesystem::path& directory) {
  return run("ls -A", directory).output;
}

std::int64_t modified(const std::filesystem::path& path) {
  struct stat st {};
  if (::stat(path.c_str(), &st) != 0) ADD_FAILURE() << path << ": " << strerror(errno);
  return st.st_mtim.tv_sec;
}

constexpr const char* kAlways = "ask\ncontinue\nctl\nfeed\nparams\nreplies\nstatus\n";

TEST_F(Listings, WhatOthersMakeInAStateIsListedAtOnce) {
  const auto s = make_state("s"), t = make_state("t");
  const auto id = *sched::resolve(store(), "s"), other = *sched::resolve(store(), "t");
  const auto both = [&](const std::string& in_s, const std::string& in_t) {
    for (int i = 0; i < 2; ++i) {  // from the kernel's memory the second time
      EXPECT_EQ(listed(s), in_s + kAlways);
      EXPECT_EQ(listed(t), in_t + kAlways);
    }
  };
  both("", "");
  const StateId child = created(id, "aa");
  both("aa\n", "");
  EXPECT_EQ(listed(s / "aa"), kAlways);
  renamed(child, id, "ab");
  both("ab\n", "");
  const StateId second = created(child, "below");
  EXPECT_EQ(listed(s / "ab"), "ask\nbelow\ncontinue\nctl\nfeed\nparams\nreplies\nstatus\n");
  renamed(second, other, "ac");
  EXPECT_EQ(listed(s / "ab"), kAlways);
  both("ab\n", "ac\n");
  removed(child);
  both("", "ac\n");
  removed(second);
  both("", "");
}

TEST_F(Listings, WhatIsMadeHereIsListedAtOnce) {
  const auto s = make_state("s"), t = make_state("t");
  const auto expect = [&](const std::string& in_s, const std::string& in_t) {
    EXPECT_EQ(listed(s), in_s + kAlways);
    EXPECT_EQ(listed(t), in_t + kAlways);
  };
  expect("", "");
  EXPECT_EQ(run("mkdir aa; echo 1 > ab; ln -s aa ac", s).code, 0);
  expect("aa\nab\nac\n", "");
  EXPECT_EQ(run("mv aa ac ../t; mv ab ad", s).code, 0);
  expect("ad\n", "aa\nac\n");
  EXPECT_EQ(run("rm ad; rmdir ../t/aa; rm ../t/ac", s).code, 0);
  expect("", "");
}

// Its names and, with each version, their numbers.
TEST_F(Listings, WhatAStateLearnsIsListedAtOnce) {
  const auto state = make_state("s");
  const auto id = *sched::resolve(store(), "s");
  EXPECT_EQ(listed(state), kAlways);
  std::string before;
  for (const char* text : {"one", " two"}) {
    house_->house().feed(id, text);
    for (int i = 0; i < 2; ++i) {
      EXPECT_THAT(listed(state), HasSubstr("kv\nparams\nreplies\nstate.json\nstatus\ntext\n"));
      EXPECT_THAT(listed(state / "kv"), HasSubstr("layer-000.safetensors\n"));
      // Those of the listing against those of the files.
      const std::string numbers =
          run("find . kv -maxdepth 1 -type f -printf '%i %f\\n' | sort", state).output;
      EXPECT_EQ(numbers, run("stat -c '%i %n' ctl state.json status text tokens.npy kv/* ctl "
                             "state.json | sed 's/kv.//' | head -n -2 | sort",
                             state)
                             .output);
      EXPECT_NE(numbers, before);
      if (i == 1) before = numbers;
    }
  }
}

TEST_F(Listings, WhatIsStagedIsListedAtOnce) {
  const auto state = make_state("s"), copy = make_state("copy");
  do_job(state / "feed/a", "text");
  for (int i = 0; i < 2; ++i) EXPECT_EQ(listed(copy), kAlways);
  EXPECT_EQ(
      run("cp ../s/state.json . && mkdir kv && cp ../s/kv/layer-000.safetensors kv/", copy).code,
      0);
  for (int i = 0; i < 2; ++i) {
    EXPECT_THAT(listed(copy), HasSubstr("kv\nparams\nreplies\nstate.json\nstatus\n"));
    EXPECT_EQ(listed(copy / "kv"), "layer-000.safetensors\n");
  }
  EXPECT_EQ(run("mv kv/layer-000.safetensors kv/part; rm state.json", copy).code, 0);
  EXPECT_EQ(listed(copy / "kv"), "part\n");
  EXPECT_THAT(listed(copy), Not(HasSubstr("state.json")));
}

TEST_F(Listings, AParameterAndTheStatusHaveTheSizeOfTheMoment) {
  const auto state = make_state("s");
  const auto id = *sched::resolve(store(), "s");
  const auto size = [&](const char* name) { return std::filesystem::file_size(state / name); };
  for (const char* value : {"1", "12", "123", "1"}) {
    ASSERT_EQ(write_file(state / "params/seed", value), 0);
    EXPECT_EQ(size("params/seed"), std::string(value).size() + 1);
    std::promise<void> set;
    sched::set_param(store(), id, "top_k", value, [&](const Status&) { set.set_value(); });
    set.get_future().wait();
    EXPECT_EQ(size("params/top_k"), std::string(value).size() + 1);
  }
  EXPECT_EQ(size("status"), 0U);
  EXPECT_NE(write_file(state / "params/temperature", "hot"), 0);
  EXPECT_EQ(size("status"), read_file(state / "status").size());
}

TEST_F(Listings, AJobThatNobodyDroppedHereIsListedAtOnce) {
  controls_.step_delay_us = 20000;
  const auto state = make_state("s", 20);
  for (int i = 0; i < 2; ++i) {  // from the kernel's memory the second time
    EXPECT_EQ(listed(state / "ask"), "");
    EXPECT_EQ(listed(state / "replies"), "");
  }
  auto& house = house_->house();
  const auto id = sched::resolve(house.store(), "s");
  ASSERT_TRUE(id);
  const std::string job = house.submit(house.submission(*id, store::JobKind::kAsk, "Why?"));
  EXPECT_EQ(listed(state / "ask"), job + "\n");
  EXPECT_EQ(listed(state / "replies"), job + "\n");
  house.wait(*id, job);
  EXPECT_TRUE(eventually([&] { return listed(state / "ask").empty(); }));
  EXPECT_EQ(listed(state / "replies"), job + "\n");
}

TEST_F(Listings, AReplyIsListedWhenItsPromptIsClosed) {
  controls_.step_delay_us = 20000;
  const auto state = make_state("s", 20);
  EXPECT_EQ(run("ls -A replies; ls -A replies; echo hi > ask/q; ls replies", state).output, "q\n");
}

TEST_F(Listings, AHiddenNameIsListedAgainAfterAMoment) {
  const auto state = make_state("s");
  EXPECT_THAT(listed(state / "params"), HasSubstr("seed"));
  ASSERT_EQ(::unlink((state / "params/seed").c_str()), 0);
  EXPECT_THAT(listed(state / "params"), Not(HasSubstr("seed")));
  EXPECT_THAT(listed(state / "params"), Not(HasSubstr("seed")));
  EXPECT_TRUE(
      eventually([&] { return listed(state / "params").find("seed") != std::string::npos; }));
}

// As small programs do it, which read a few names, remove them, and read on.
TEST_F(Listings, NamesThatGoMeanwhileMakeNobodyMissOthers) {
  const auto state = make_state("s");
  ASSERT_EQ(run("for i in $(seq 300); do : > f$i; done", state).code, 0);
  const int fd = ::open(state.c_str(), O_RDONLY | O_DIRECTORY);
  ASSERT_GE(fd, 0);
  std::multiset<std::string> seen;
  alignas(dirent64) char buffer[512];
  for (long got; (got = ::syscall(SYS_getdents64, fd, buffer, sizeof buffer)) > 0;) {
    for (long at = 0; at < got;) {
      const auto* entry = reinterpret_cast<const dirent64*>(buffer + at);
      at += entry->d_reclen;
      const std::string name = entry->d_name;
      if (name[0] != 'f' || name == "feed") continue;
      seen.insert(name);
      EXPECT_EQ(::unlink((state / name).c_str()), 0) << name;
    }
  }
  ::close(fd);
  EXPECT_EQ(seen.size(), 300U);
  EXPECT_EQ(std::set<std::string>(seen.begin(), seen.end()).size(), 300U);
  EXPECT_THAT(listed(state), Not(HasSubstr("f1")));
}

TEST_F(Listings, APlaceInAListingIsFoundAgain) {
  const auto state = make_state("s");
  DIR* const directory = ::opendir((state / "params").c_str());
  ASSERT_NE(directory, nullptr);
  for (int i = 0; i < 5; ++i) ASSERT_NE(::readdir(directory), nullptr);
  const long place = ::telldir(directory);
  const std::string sixth = ::readdir(directory)->d_name;
  while (::readdir(directory) != nullptr) {
  }
  ::seekdir(directory, place);
  EXPECT_EQ(::readdir(directory)->d_name, sixth);
  ::closedir(directory);
}

TEST_F(Listings, AStateKeepsTheTimeItWasGivenUntilItAdvances) {
  const auto state = make_state("s");
  do_job(state / "feed/a", "text");
  ASSERT_EQ(run("touch -d @1000000000 .", state).code, 0);
  EXPECT_EQ(modified(state), 1000000000);
  remount();
  EXPECT_EQ(modified(state), 1000000000);
  ASSERT_EQ(::mkdir((state / "child").c_str(), 0700), 0);
  EXPECT_GT(modified(state), 1000000000);
  ASSERT_EQ(run("touch -d @1000000000 .", state).code, 0);
  do_job(state / "feed/b", "more");
  EXPECT_TRUE(eventually([&] { return modified(state) > 1000000000; }));
}

}  // namespace
}  // namespace kvfs::fs::test
