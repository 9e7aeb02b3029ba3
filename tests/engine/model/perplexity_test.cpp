// The real model's perplexity on 2,000 tokens of English, against transformers'.
#include "tests/engine/model/perplexity.h"

#include <cstdio>
#include <fstream>
#include <sstream>

#include "tests/engine/model/model_fixture.h"

namespace kvfs::model::testing {
namespace {

const PerplexityGolden& golden() {
  static const PerplexityGolden kGolden = PerplexityGolden::read(
      KVFS_REPO_DIR "/tests/engine/model/goldens/perplexity-smollm2-135m.json");
  return kGolden;
}

void expect_near_transformers(Compute compute, double least_agreement) {
  const Loaded loaded = load(model_path(), compute, 2);
  ASSERT_TRUE(loaded.model);
  ASSERT_EQ(golden().ids.size(), 2000U);
  const auto measured = measure_perplexity(*loaded.model, golden());
  ASSERT_TRUE(measured) << measured.error().message();
  const double ratio = measured->perplexity / golden().perplexity;
  ::testing::Test::RecordProperty("perplexity_ratio", std::to_string(ratio));
  ::testing::Test::RecordProperty("agreement", std::to_string(measured->agreement));
  std::printf("perplexity %.4f, × %.5f of transformers', agreement %.4f\n", measured->perplexity,
              ratio, measured->agreement);
  EXPECT_NEAR(ratio, 1.0, allowed_share(compute));
  EXPECT_GE(measured->agreement, least_agreement);
}

TEST(Perplexity, OfTheReferenceModeIsTransformers) {
  expect_near_transformers(Compute::kReference, 0.995);
}

TEST(Perplexity, OfTheFastModeIsNearTransformers) {
  expect_near_transformers(Compute::kFast, 0.97);
}

TEST(Perplexity, TheTokenizerGivesTheGoldensIds) {
  const auto card = read_card(model_path(), Compute::kFast, {}, {});
  ASSERT_TRUE(card) << card.error().message();
  std::ifstream file(KVFS_REPO_DIR "/tests/data/alice.txt");
  std::stringstream text;
  text << file.rdbuf();
  auto ids = (*card)->tokenizer->encode(text.str(), text::SpecialText::kAsText);
  ASSERT_GE(ids.size(), golden().ids.size());
  ids.resize(golden().ids.size());
  EXPECT_EQ(ids, golden().ids);
}

}  // namespace
}  // namespace kvfs::model::testing
