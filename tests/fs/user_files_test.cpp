// Notes, PDFs, editors' files: kept beside a state as any filesystem keeps them.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <random>

#include "tests/fs/mounted.h"

namespace kvfs::fs::test {
namespace {

using ::testing::HasSubstr;

using UserFiles = Mounted;

struct stat stat_of(const std::filesystem::path& path) {
  struct stat st {};
  if (::stat(path.c_str(), &st) != 0) ADD_FAILURE() << path << ": " << strerror(errno);
  return st;
}

std::string noise(std::size_t size, unsigned seed) {
  std::mt19937 random(seed);
  std::string out(size, '\0');
  for (char& c : out) c = static_cast<char>(random());
  return out;
}

TEST_F(UserFiles, ANoteIsKeptOverARemount) {
  const auto state = make_state("s");
  ASSERT_EQ(write_file(state / "note.txt", "remember"), 0);
  ASSERT_EQ(write_file(states() / "beside states", "too"), 0);
  remount();
  EXPECT_EQ(read_file(state / "note.txt"), "remember");
  EXPECT_EQ(read_file(states() / "beside states"), "too");
  EXPECT_THAT(run("ls s", states()).output, HasSubstr("note.txt\n"));
  EXPECT_EQ(::rmdir(state.c_str()), -1);
  EXPECT_EQ(errno, ENOTEMPTY);
  ASSERT_EQ(::unlink((state / "note.txt").c_str()), 0);
  EXPECT_EQ(::rmdir(state.c_str()), 0);
}

TEST_F(UserFiles, TheDaemonsNamesStayItsOwn) {
  const auto state = make_state("s");
  ASSERT_EQ(write_file(state / "note", "x"), 0);
  EXPECT_NE(::rename((state / "note").c_str(), (state / "params").c_str()), 0);
  EXPECT_EQ(::mkdir((state / "note").c_str(), 0777), -1);
  EXPECT_EQ(errno, EEXIST);
  EXPECT_EQ(write_file(state / "ask/../note", "y"), 0);
}

TEST_F(UserFiles, ModesTimesAndOwnersAreAFilesOwn) {
  const auto state = make_state("s");
  ASSERT_EQ(write_file(state / "f", "x"), 0);
  ASSERT_EQ(
      run("chmod 640 f && touch -d '2001-02-03 04:05:06.123456789' f && chown 12:34 f", state).code,
      0);
  remount();
  const auto st = stat_of(state / "f");
  EXPECT_EQ(st.st_mode, static_cast<mode_t>(S_IFREG | 0640));
  EXPECT_EQ(st.st_uid, 12U);
  EXPECT_EQ(st.st_mtim.tv_nsec, 123456789);
}

// Writes, cuts and extensions anywhere, against a plain string.
TEST_F(UserFiles, RandomWritesReadBack) {
  const auto state = make_state("s");
  const auto path = state / "big";
  std::mt19937 random(7);
  std::string model;
  int fd = ::open(path.c_str(), O_RDWR | O_CREAT, 0600);
  ASSERT_GE(fd, 0);
  for (int i = 0; i < 200; ++i) {
    const std::size_t at = random() % 3'000'000, size = 1 + random() % 300'000;
    switch (random() % 6) {
      case 0: {
        ASSERT_EQ(::ftruncate(fd, static_cast<off_t>(at)), 0);
        model.resize(at);
        break;
      }
      case 1:
        ASSERT_EQ(::fsync(fd), 0);
        break;
      case 2: {
        ::close(fd);
        if (i % 2 == 0) remount();
        fd = ::open(path.c_str(), O_RDWR);
        ASSERT_GE(fd, 0);
        break;
      }
      default: {
        const std::string bytes = noise(size, static_cast<unsigned>(i));
        ASSERT_EQ(::pwrite(fd, bytes.data(), size, static_cast<off_t>(at)),
                  static_cast<ssize_t>(size));
        if (model.size() < at + size) model.resize(at + size);
        model.replace(at, size, bytes);
      }
    }
    if (i % 20 == 0) {
      ASSERT_TRUE(read_file(path) == model) << "after write " << i;
      ASSERT_EQ(static_cast<std::size_t>(stat_of(path).st_size), model.size());
    }
  }
  ::close(fd);
  remount();
  EXPECT_TRUE(read_file(path) == model);
  const auto report = house_->house().store().verify();
  ASSERT_TRUE(report);
  EXPECT_THAT(report->problems, ::testing::IsEmpty());
}

TEST_F(UserFiles, ASparseTerabyteCostsNothing) {
  const auto state = make_state("s");
  const auto path = state / "sparse";
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT, 0600);
  ASSERT_EQ(::ftruncate(fd, off_t{1} << 40), 0);
  ASSERT_EQ(::pwrite(fd, "end", 3, (off_t{1} << 40) - 3), 3);
  ASSERT_EQ(::fsync(fd), 0);
  EXPECT_EQ(::lseek(fd, 0, SEEK_DATA), (off_t{1} << 40) - 131072);
  EXPECT_EQ(::lseek(fd, 0, SEEK_HOLE), 0);
  EXPECT_EQ(::pwrite(fd, "x", 1, std::numeric_limits<off_t>::max() - 1), -1);
  EXPECT_EQ(errno, EFBIG);
  ::close(fd);
  EXPECT_EQ(stat_of(path).st_size, off_t{1} << 40);
  EXPECT_LT(stat_of(path).st_blocks, 1000);
  EXPECT_EQ(run("timeout 20 cp sparse again && tail -c 3 again", state).output, "end");
}

TEST_F(UserFiles, AnUnlinkedOpenFileLivesUntilItIsClosed) {
  const auto state = make_state("s");
  const std::string text = noise(500'000, 3);
  ASSERT_EQ(write_file(state / "f", text), 0);
  const int fd = ::open((state / "f").c_str(), O_RDWR);
  ASSERT_EQ(::unlink((state / "f").c_str()), 0);
  EXPECT_FALSE(std::filesystem::exists(state / "f"));
  std::string read(text.size(), '\0');
  EXPECT_EQ(::pread(fd, read.data(), read.size(), 0), static_cast<ssize_t>(read.size()));
  EXPECT_TRUE(read == text);
  EXPECT_EQ(::pwrite(fd, "more", 4, 0), 4);
  ::close(fd);
  EXPECT_EQ(::rmdir(state.c_str()), 0);
  EXPECT_TRUE(eventually([&] {
    const auto report = house_->house().store().verify();
    return report && report->problems.empty();
  }));
}

TEST_F(UserFiles, RenamingOverAnotherReplacesIt) {
  const auto state = make_state("s");
  ASSERT_EQ(write_file(state / "old", "old"), 0);
  const int fd = ::open((state / "old").c_str(), O_RDONLY);
  ASSERT_EQ(write_file(state / ".old.tmp", "new"), 0);
  ASSERT_EQ(::rename((state / ".old.tmp").c_str(), (state / "old").c_str()), 0);
  EXPECT_EQ(read_file(state / "old"), "new");
  char byte = 0;
  EXPECT_EQ(::pread(fd, &byte, 1, 0), 1);
  EXPECT_EQ(byte, 'o');
  ::close(fd);
  ASSERT_EQ(::rename((state / "old").c_str(), (states() / "elsewhere").c_str()), 0);
  EXPECT_EQ(read_file(states() / "elsewhere"), "new");
}

TEST_F(UserFiles, MappingsAndAppendsAndLocksWork) {
  const auto state = make_state("s");
  ASSERT_EQ(write_file(state / "m", std::string(8192, 'a')), 0);
  const int fd = ::open((state / "m").c_str(), O_RDWR);
  void* map = ::mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  ASSERT_NE(map, MAP_FAILED);
  static_cast<char*>(map)[5000] = 'b';
  ASSERT_EQ(::msync(map, 8192, MS_SYNC), 0);
  ::munmap(map, 8192);
  EXPECT_EQ(::flock(fd, LOCK_EX | LOCK_NB), 0);
  ::close(fd);
  remount();
  EXPECT_EQ(read_file(state / "m").substr(4999, 3), "aba");
  EXPECT_EQ(
      run("for i in 1 2 3; do echo $i >> log; done; cat log; sed -i s/2/two/ log; cat log", state)
          .output,
      "1\n2\n3\n1\ntwo\n3\n");
}

TEST_F(UserFiles, AForkHasThemAndTheyPart) {
  const auto state = make_state("s");
  ASSERT_EQ(write_file(state / "paper", noise(400'000, 5)), 0);
  std::filesystem::create_directory(state / "child");
  EXPECT_EQ(read_file(state / "child/paper"), read_file(state / "paper"));
  ASSERT_EQ(write_file(state / "child/paper", "short"), 0);
  EXPECT_EQ(read_file(state / "paper"), noise(400'000, 5));
  EXPECT_EQ(read_file(state / "child/paper"), "short");
}

TEST_F(UserFiles, AForkAndASnapshotBeginWithWhatIsWrittenIntoAnOpenFile) {
  const auto state = make_state("s");
  const int fd = ::open((state / "log").c_str(), O_WRONLY | O_CREAT, 0600);
  ASSERT_GE(fd, 0);
  EXPECT_EQ(::write(fd, "one", 3), 3);
  std::filesystem::create_directory(state / "child");
  EXPECT_EQ(::write(fd, "two", 3), 3);
  std::filesystem::create_directory(state / ".snap/v1");
  EXPECT_EQ(::write(fd, "three", 5), 5);
  EXPECT_EQ(::close(fd), 0);
  EXPECT_EQ(read_file(state / "child/log"), "one");
  EXPECT_EQ(read_file(state / ".snap/v1/log"), "onetwo");
}

TEST_F(UserFiles, WhatIsMadeRemovedAndSyncedIsThereAfterARemount) {
  const auto state = make_state("s");
  for (int i = 0; i < 50; ++i) ASSERT_EQ(write_file(state / ("f" + std::to_string(i)), "x"), 0);
  ASSERT_EQ(run("rm f1? && mkdir -p d && sync f0 . && chmod 640 f0", state).code, 0);
  remount();
  EXPECT_EQ(run("ls | grep -c ^f[0-9]", state).output, "40\n");
  EXPECT_EQ(run("stat -c %a f0", state).output, "640\n");
}

TEST_F(UserFiles, LinksLead) {
  make_state("v2");
  ASSERT_EQ(write_file(states() / "v2/note", "here"), 0);
  ASSERT_EQ(run("ln -sfn v2 current && cat current/note && readlink current", states()).output,
            "herev2\n");
  remount();
  EXPECT_EQ(read_file(states() / "current/note"), "here");
  ASSERT_EQ(run("ln -sfn v3 current && readlink current", states()).output, "v3\n");
  EXPECT_EQ(::unlink((states() / "current").c_str()), 0);
}

}  // namespace
}  // namespace kvfs::fs::test
