// filesystem.md's sentences on jobs and parameters, as far as no other file here has them.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "tests/fs/mounted.h"

namespace kvfs::fs::test {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class Contract : public Mounted {
 protected:
  // A job that keeps the engine for as long as it is there.
  void occupy(const std::filesystem::path& state) {
    controls_.step_delay_us = 50000;
    ASSERT_EQ(write_file(state / "continue/long", "x"), 0);
    ASSERT_TRUE(eventually([&] { return status_of(state, "long").starts_with("long running"); }));
  }
};

TEST_F(Contract, AForkHasItsParentsParametersAndTheyPart) {
  const auto state = make_state("s", 5);
  std::filesystem::create_directory(state / "child");
  for (const char* name : {"max_tokens", "temperature", "template", "seed"}) {
    EXPECT_EQ(read_file(state / "child/params" / name), read_file(state / "params" / name)) << name;
  }
  ASSERT_EQ(write_file(state / "params/max_tokens", "9"), 0);
  EXPECT_EQ(read_file(state / "child/params/max_tokens"), "5\n");
  ASSERT_EQ(write_file(state / "child/params/temperature", "1.5"), 0);
  EXPECT_EQ(read_file(state / "params/temperature"), "0\n");
}

TEST_F(Contract, AJobTakesTheParametersOfTheMomentItIsSubmitted) {
  const auto state = make_state("s", 400);
  occupy(state);
  ASSERT_EQ(write_file(state / "params/max_tokens", "3"), 0);
  ASSERT_EQ(write_file(state / "continue/next", "y"), 0);
  ASSERT_EQ(write_file(state / "params/max_tokens", "9"), 0);
  controls_.step_delay_us = 0;
  ASSERT_EQ(::unlink((state / "continue/long").c_str()), 0);
  ASSERT_TRUE(eventually([&] { return is_done(state, "next"); }));
  EXPECT_THAT(status_of(state, "next"), HasSubstr(" 3 generated"));
}

TEST_F(Contract, APromptIsCutToTheHeadOrTheTailOrRefused) {
  const auto state = make_state("s", 2);
  ASSERT_EQ(write_file(state / "params/max_prefix_tokens", "10"), 0);
  const std::string text = "0123456789abcdefghij";
  EXPECT_EQ(write_file(state / "feed/error", text), EFBIG);
  EXPECT_THAT(status_of(state, "error"), HasSubstr("room for 10"));
  EXPECT_FALSE(std::filesystem::exists(state / "text"));
  for (const auto& [how, kept] :
       {std::pair{"head", text.substr(0, 10)}, {"tail", text.substr(10)}}) {
    const auto one = make_state(how, 2);
    ASSERT_EQ(write_file(one / "params/max_prefix_tokens", "10"), 0);
    ASSERT_EQ(write_file(one / "params/truncate", how), 0);
    do_job(one / "feed/t", text);
    EXPECT_EQ(read_file(one / "text"), kept);
  }
}

TEST_F(Contract, AChatTemplateNeedsAModelThatHasOne) {
  const auto state = make_state("s", 2);
  const int refused = write_file(state / "params/template", "prose");
  EXPECT_EQ(refused, EINVAL);
  ASSERT_EQ(write_file(state / "params/template", "chat"), 0);
  EXPECT_EQ(write_file(state / "ask/q", "why"), EINVAL);
  EXPECT_THAT(status_of(state, "q"), HasSubstr("no chat template"));
}

TEST_F(Contract, APromptMayBeMapped) {
  const auto state = make_state("s", 2);
  const std::string text = "written through a mapping";
  for (const bool closed_first : {false, true}) {
    SCOPED_TRACE(closed_first);
    const auto path = state / "continue" / (closed_first ? "late" : "early");
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT, 0600);
    ASSERT_GE(fd, 0);
    ASSERT_EQ(::ftruncate(fd, static_cast<off_t>(text.size())), 0);
    void* const at = ::mmap(nullptr, text.size(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    ASSERT_NE(at, MAP_FAILED);
    if (closed_first) {
      EXPECT_EQ(::close(fd), 0);
    }
    std::memcpy(at, text.data(), text.size());
    EXPECT_EQ(::munmap(at, text.size()), 0);
    if (!closed_first) {
      EXPECT_EQ(::close(fd), 0);
    }
    const std::string job = path.filename();
    EXPECT_TRUE(eventually([&] { return is_done(state, job); })) << read_file(state / "status");
    EXPECT_THAT(read_file(state / "text"), HasSubstr(text));
  }
}

TEST_F(Contract, APromptMayBeCutBeforeItIsClosed) {
  const auto state = make_state("s", 2);
  const int fd = ::open((state / "continue/c").c_str(), O_WRONLY | O_CREAT, 0600);
  ASSERT_GE(fd, 0);
  EXPECT_EQ(::write(fd, "abcdef and more", 15), 15);
  EXPECT_EQ(::ftruncate(fd, 6), 0);
  EXPECT_EQ(::close(fd), 0);
  ASSERT_TRUE(eventually([&] { return is_done(state, "c"); }));
  EXPECT_THAT(read_file(state / "text"), StartsWith("abcdef"));
  EXPECT_EQ(std::filesystem::file_size(state / "text"), 8U);
}

TEST_F(Contract, AStateGoesOnBesideAQuestionThatIsBeingAnswered) {
  const auto state = make_state("s", 400);
  controls_.step_delay_us = 50000;
  ASSERT_EQ(write_file(state / "ask/long", "x"), 0);
  ASSERT_TRUE(eventually([&] { return status_of(state, "long").starts_with("long running"); }));
  ASSERT_EQ(write_file(state / "params/max_tokens", "2"), 0);
  ASSERT_EQ(write_file(state / "continue/c", "meanwhile"), 0);
  ASSERT_TRUE(eventually([&] { return is_done(state, "c"); }));
  EXPECT_THAT(status_of(state, "long"), StartsWith("long running"));
  EXPECT_THAT(read_file(state / "text"), StartsWith("meanwhile"));
  controls_.step_delay_us = 0;
  ASSERT_EQ(::unlink((state / "ask/long").c_str()), 0);
}

TEST_F(Contract, AFullQueueSaysEagainAtCloseAndInWords) {
  house_ = nullptr;
  auto house = std::make_unique<sched::test::House>(controls_);
  house->options.queue_limit = 2;
  house->reopen();
  house_ = std::make_unique<MountedHouse>(std::move(house));
  const auto state = make_state("s", 400);
  occupy(state);
  ASSERT_EQ(write_file(state / "continue/two", "y"), 0);
  ASSERT_TRUE(eventually([&] { return status_of(state, "two").starts_with("two queued"); }));
  EXPECT_EQ(write_file(state / "continue/three", "z"), EAGAIN);
  EXPECT_THAT(status_of(state, "three"), HasSubstr("error: "));
  ASSERT_EQ(::unlink((state / "continue/two").c_str()), 0);
  EXPECT_TRUE(eventually([&] { return write_file(state / "continue/four", "z") == 0; }));
  controls_.step_delay_us = 0;
  ASSERT_EQ(::unlink((state / "continue/long").c_str()), 0);
  EXPECT_TRUE(eventually([&] { return is_done(state, "four"); }));
}

}  // namespace
}  // namespace kvfs::fs::test
