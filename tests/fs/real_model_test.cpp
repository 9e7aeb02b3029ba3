// The whole path on the real model: a prompt dropped into a directory is answered, in words.
#include <gmock/gmock.h>

#include <cstdlib>

#include "tests/fs/mounted.h"

namespace kvfs::fs::test {
namespace {

using ::testing::HasSubstr;

std::filesystem::path model_path() {
  if (const char* path = std::getenv("KVFS_MODEL")) return path;
  return std::filesystem::path(KVFS_DEPS_DIR) / "models/SmolLM2-135M-Instruct.Q4_1.gguf";
}

class RealModel : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    ASSERT_TRUE(std::filesystem::exists(model_path()))
        << "no model at " << model_path() << ": run scripts/setup, or set KVFS_MODEL";
    house_ = std::make_unique<MountedHouse>(std::make_unique<sched::test::House>(model_path()));
  }
  static void TearDownTestSuite() { house_.reset(); }
  static std::filesystem::path states() { return house_->root() / "states"; }
  static std::unique_ptr<MountedHouse> house_;
};
std::unique_ptr<MountedHouse> RealModel::house_;

TEST_F(RealModel, TheReadmesExampleWorksWhenPasted) {
  const auto script =
      run("sed -n '/^  cd /,/^  cat quantum.status/p' README > /dev/shm/kvfs-readme-$$ "
          "&& bash -e /dev/shm/kvfs-readme-$$; rc=$?; rm /dev/shm/kvfs-readme-$$; exit $rc",
          house_->root());
  EXPECT_EQ(script.code, 0) << script.output;
  EXPECT_THAT(script.output, HasSubstr("q1 done"));
  EXPECT_THAT(script.output, HasSubstr("note done"));
}

TEST_F(RealModel, AGreedyAnswerIsTheSameEachTimeAndOnAFork) {
  const auto state = states() / "s";
  std::filesystem::create_directory(state);
  const auto [code, output] =
      run("echo 0 > params/temperature; echo 12 > params/max_tokens; "
          "echo 'The capital of France is Paris.' > feed/fact; "
          "echo 'What is the capital of France?' > ask/a; cat replies/a > /dev/shm/kvfs-a-$$; "
          "mkdir fork; echo 'What is the capital of France?' > fork/ask/a; "
          "cat fork/replies/a | cmp - /dev/shm/kvfs-a-$$ && cat /dev/shm/kvfs-a-$$; "
          "rm /dev/shm/kvfs-a-$$; rm -r fork",
          state);
  EXPECT_EQ(code, 0) << output;
  EXPECT_THAT(output, HasSubstr("Paris"));
}

TEST_F(RealModel, TheKvFilesAreSafetensorsOfTheModelsShape) {
  const auto state = states() / "kv";
  std::filesystem::create_directory(state);
  ASSERT_EQ(write_file(state / "feed/a", "A few words."), 0);
  ASSERT_TRUE(eventually([&] { return std::filesystem::exists(state / "kv"); }));
  const auto [code, output] =
      run("ls kv | wc -l; head -c 400 kv/layer-000.safetensors | tail -c +9 | grep -ao "
          "'\"shape\":[^]]*]'",
          state);
  EXPECT_THAT(output, HasSubstr("30\n"));
  EXPECT_THAT(output, HasSubstr("[1,3,"));
}

}  // namespace
}  // namespace kvfs::fs::test
