// A small run of what bench_prune_quality measures: methods that know what a text needs lose less
// than a choice at random, and nothing lost is nothing changed.
#include "tests/bench/prune_quality.h"

#include <cstdio>

#include "tests/engine/model/model_fixture.h"

namespace kvfs::model::quality {
namespace {

class PruneQuality : public ::testing::Test {
 protected:
  static constexpr Sizes kSizes{.context = 320, .held_out = 96, .questions = 4, .reply = 8};

  void SetUp() override {
    loaded_ = testing::load(testing::model_path(), Compute::kFast, 2);
    ASSERT_TRUE(loaded_.model);
    auto lab = Lab::open(*loaded_.model, *loaded_.card,
                         file_text(KVFS_REPO_DIR "/tests/data/alice.txt"), kSizes);
    ASSERT_TRUE(lab) << lab.error().message();
    lab_ = *std::move(lab);
  }
  Quality measured(const std::string& words) {
    const auto policy = prune::parse_policy(words);
    EXPECT_TRUE(policy) << words;
    const auto seen = lab_->look(policy->method);
    EXPECT_TRUE(seen) << (seen ? "" : seen.error().message());
    auto quality = lab_->measure(policy->method, *seen);
    EXPECT_TRUE(quality) << (quality ? "" : quality.error().message());
    std::printf("%-24s kept %.2f, perplexity %.2f, KL %.3f, planted %.1f, same begin %.2f\n",
                words.c_str(), quality->kept, quality->perplexity, quality->kl, quality->retrieved,
                quality->same_begin);
    return *quality;
  }
  testing::Loaded loaded_;
  std::unique_ptr<Lab> lab_;
};

TEST_F(PruneQuality, IsThatOfTheMethodAndNotOfChance) {
  const Quality& full = lab_->full();
  EXPECT_GE(full.retrieved, 0.7) << "the model finds too little to measure anything by";
  const Quality all = measured("keep_last n=100000");
  EXPECT_EQ(all.kl, 0);
  EXPECT_EQ(all.perplexity, full.perplexity);
  EXPECT_EQ(all.same_replies, 1);

  const Quality random = measured("random keep=0.4");
  EXPECT_GT(random.kl, 0.02);
  for (const char* words : {"expected keep=0.4", "kvzip keep=0.4"}) {
    const Quality better = measured(words);
    EXPECT_NEAR(better.kept, 0.4, 0.02) << words;
    EXPECT_LT(better.kl, random.kl / 2) << words;
    EXPECT_LT(better.perplexity, random.perplexity) << words;
    EXPECT_GE(better.retrieved, random.retrieved) << words;
  }
}

}  // namespace
}  // namespace kvfs::model::quality
