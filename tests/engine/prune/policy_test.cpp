#include "engine/prune/policy.h"

#include <gtest/gtest.h>

namespace kvfs::prune {
namespace {

std::string round_trip(std::string_view words) {
  const auto policy = parse_policy(words);
  if (!policy) return policy.error().message();
  const std::string written = to_words(*policy);
  const auto again = parse_policy(written);
  EXPECT_TRUE(again && to_words(*again) == written) << written;
  return written;
}

TEST(Policy, AMethodsNameAloneStandsForItsDefaults) {
  EXPECT_EQ(round_trip("keep_last"), "keep_last n=512 sinks=0");
  EXPECT_EQ(round_trip("pyramid"),
            "pyramid window=128 bottom=512 top=128 refresh=16 start=256 select=heads");
  EXPECT_EQ(round_trip("pyramidkv"),
            "pyramidkv capacity=320 window=64 kernel=5 pooling=avg beta=20");
  EXPECT_EQ(round_trip("adakv"), "adakv capacity=320 window=64 kernel=5 pooling=avg safeguard=0.2");
  EXPECT_EQ(round_trip("random"), "random keep=0.5 seed=0");
}

TEST(Policy, WordsComeInAnyOrderAndGoOutInOne) {
  EXPECT_EQ(round_trip("  snapkv  pooling=max positions=compact\tcapacity=100 "),
            "snapkv capacity=100 window=64 kernel=5 pooling=max positions=compact");
  EXPECT_EQ(round_trip("drop to=20 from=10 positions=keep"), "drop from=10 to=20");
}

TEST(Policy, AnAmountWithAPointIsAShareAndWithoutOneACount) {
  EXPECT_EQ(round_trip("knorm keep=0.25"), "knorm keep=0.25");
  EXPECT_EQ(round_trip("knorm keep=1.0"), "knorm keep=1.0");
  EXPECT_EQ(round_trip("knorm keep=1"), "knorm keep=1");
  EXPECT_EQ(round_trip("kvzip keep=1e-1"), "kvzip keep=0.1");
}

TEST(Policy, WhatIsWrongIsSaidInASentence) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "prune by ''"},
      {"piramid", "no such method"},
      {"pyramid width=3", "no such parameter; take one of positions, window"},
      {"pyramid window", "name=value"},
      {"pyramid window=3 window=4", "named twice"},
      {"pyramid window=", "a number from 1 on"},
      {"pyramid window=0", "a number from 1 on"},
      {"pyramid window=-5", "a number from 1 on"},
      {"pyramid window=99999999999", "a number from 1 on"},
      {"pyramid window=2.5", "a number from 1 on"},
      {"pyramid window=600", "wider than the budgets, bottom=512 and top=128"},
      {"pyramid select=all", "heads or mean"},
      {"snapkv window=320", "fills the capacity of 320"},
      {"snapkv kernel=4", "odd"},
      {"snapkv pooling=median", "avg or max"},
      {"adakv safeguard=1.5", "at most"},
      {"adakv safeguard=nan", "a number from 0"},
      {"knorm keep=0.0", "nothing would stay"},
      {"knorm keep=nan", "a number from"},
      {"knorm keep=0", "a number from 1 on"},
      {"knorm keep=1.5", "at most"},
      {"knorm keep=-0.5", "a number from 0"},
      {"drop from=5 to=5", "nothing between"},
      {"keep_last positions=other", "keep or compact"},
  };
  for (const auto& [words, why] : cases) {
    const auto policy = parse_policy(words);
    ASSERT_FALSE(policy) << words;
    EXPECT_EQ(policy.error().code, ErrorCode::kInvalid) << words;
    EXPECT_NE(policy.error().message().find(why), std::string::npos)
        << words << ": " << policy.error().message();
  }
}

TEST(Policy, TheDefaultIsOneOfThem) {
  const auto policy = parse_policy(kDefaultPolicy);
  ASSERT_TRUE(policy) << policy.error().message();
  EXPECT_EQ(to_words(*policy), kDefaultPolicy);
}

}  // namespace
}  // namespace kvfs::prune
