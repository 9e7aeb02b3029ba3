#include <fcntl.h>
#include <gmock/gmock.h>
#include <unistd.h>

#include "engine/sched/params.h"
#include "tests/fs/mounted.h"

namespace kvfs::fs::test {
namespace {

using ::testing::HasSubstr;

class Params : public Mounted {
 protected:
  void SetUp() override {
    Mounted::SetUp();
    std::filesystem::create_directory(states() / "s");
    params_ = states() / "s/params";
  }
  std::string value(const char* name) { return read_file(params_ / name); }

  std::filesystem::path params_;
};

TEST_F(Params, EveryParameterIsAFileWithItsDefault) {
  for (const auto& spec : sched::param_table()) {
    EXPECT_TRUE(std::filesystem::exists(params_ / spec.name)) << spec.name;
  }
  EXPECT_EQ(value("temperature"), "0.8\n");
  EXPECT_EQ(value("max_tokens"), "256\n");
  EXPECT_EQ(value("model"), "fake\n");
}

TEST_F(Params, AValueHoldsWhenCloseReturns) {
  for (const char* text : {"0.25", "0.5\n", " 0.75 \n"}) {
    ASSERT_EQ(write_file(params_ / "temperature", text), 0);
    EXPECT_EQ(std::stod(value("temperature")), std::stod(text));
  }
}

TEST_F(Params, ARefusedValueLeavesTheOldOne) {
  ASSERT_EQ(write_file(params_ / "temperature", "0.25"), 0);
  for (const char* text : {"hot", "-1", "11", "0.5 0.6"}) {
    EXPECT_EQ(write_file(params_ / "temperature", text), EINVAL) << text;
    EXPECT_EQ(value("temperature"), "0.25\n");
  }
  EXPECT_THAT(read_file(states() / "s/status"), HasSubstr("params/temperature error: "));
  ASSERT_EQ(write_file(params_ / "temperature", "0.5"), 0);
  EXPECT_EQ(read_file(states() / "s/status"), "");
}

TEST_F(Params, RedirectingInAShellSetsAndEmptyingRestores) {
  EXPECT_EQ(run("echo 7 > params/seed && cat params/seed", states() / "s").output, "7\n");
  EXPECT_EQ(run(": > params/seed", states() / "s").code, 0);
  EXPECT_TRUE(eventually([&] { return value("seed") == "\n"; }));
}

TEST_F(Params, AppendingAndWritingAnywhereEditTheText) {
  ASSERT_EQ(write_file(params_ / "max_tokens", "12"), 0);
  const int fd = ::open((params_ / "max_tokens").c_str(), O_RDWR);
  ASSERT_GE(fd, 0);
  EXPECT_EQ(::pwrite(fd, "9", 1, 0), 1);
  EXPECT_EQ(::close(fd), 0);
  EXPECT_EQ(value("max_tokens"), "92\n");
}

TEST_F(Params, ReplacingTheFileWholeSetsTheValue) {
  ASSERT_EQ(write_file(params_ / ".top_p.tmp", "0.5"), 0);
  ASSERT_EQ(::rename((params_ / ".top_p.tmp").c_str(), (params_ / "top_p").c_str()), 0);
  EXPECT_EQ(value("top_p"), "0.5\n");
  EXPECT_FALSE(std::filesystem::exists(params_ / ".top_p.tmp"));

  ASSERT_EQ(write_file(params_ / ".top_p.tmp", "7"), 0);
  EXPECT_EQ(::rename((params_ / ".top_p.tmp").c_str(), (params_ / "top_p").c_str()), -1);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(value("top_p"), "0.5\n");
}

TEST_F(Params, UnknownNamesAreRefusedInWords) {
  EXPECT_EQ(write_file(params_ / "temprature", "1"), EINVAL);
  EXPECT_THAT(read_file(states() / "s/status"), HasSubstr("params/temprature error: "));
  EXPECT_THAT(read_file(states() / "s/status"), HasSubstr("temperature"));
  EXPECT_EQ(run("cat params/temprature", states() / "s").code, 1);
}

}  // namespace
}  // namespace kvfs::fs::test
