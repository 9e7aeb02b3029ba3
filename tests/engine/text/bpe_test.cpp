// Byte-pair merging against its rule, applied literally, at every size that is done in another way.
#include "engine/text/bpe.h"

#include <gtest/gtest.h>

namespace kvfs::text {
namespace {

constexpr TokenId kLetters = 4;
constexpr std::size_t kIds = 64;

struct Rule {
  std::uint32_t rank;
  TokenId joined;
};

// Merges of random pairs in random order: as in no trained file, what a merge makes may merge
// sooner than the merge itself, and several pairs have one rank.
class Merges {
 public:
  explicit Merges(std::uint64_t seed) : state_(seed), rules_(kIds * kIds, {0, kNoToken}) {
    for (auto id = static_cast<std::size_t>(kLetters); id < kIds; ++id) {
      for (std::size_t pairs = 0; pairs < 3; ++pairs) {
        const std::size_t left = random(id), right = random(id);
        Rule& rule = rules_[left * kIds + right];
        if (rule.joined != kNoToken) continue;
        rule = {static_cast<std::uint32_t>(random(100)), static_cast<TokenId>(id)};
        bpe_.add_merge(static_cast<TokenId>(left), static_cast<TokenId>(right), rule.rank,
                       rule.joined);
      }
    }
  }
  std::size_t random(std::size_t below) {
    state_ = state_ * 6364136223846793005U + 1442695040888963407U;
    return static_cast<std::size_t>(state_ >> 33U) % below;
  }
  const Bpe& bpe() const { return bpe_; }

  std::vector<TokenId> by_the_rule(std::vector<TokenId> ids) const {
    while (true) {
      const Rule* best = nullptr;
      std::size_t place = 0;
      for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
        const Rule& rule =
            rules_[static_cast<std::size_t>(ids[i]) * kIds + static_cast<std::size_t>(ids[i + 1])];
        if (rule.joined == kNoToken || (best && best->rank <= rule.rank)) continue;
        best = &rule;
        place = i;
      }
      if (!best) return ids;
      ids[place] = best->joined;
      ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(place) + 1);
    }
  }

 private:
  std::uint64_t state_;
  std::vector<Rule> rules_;
  Bpe bpe_;
};

TEST(Bpe, JoinsTheLowestRankFromTheLeftAtEveryLength) {
  for (std::uint64_t seed = 1; seed <= 12; ++seed) {
    Merges merges(seed);
    for (const std::size_t length : {2, 47, 48, 49, 500, 4096, 4097, 6000}) {
      std::vector<TokenId> symbols;
      const bool monotonous = seed % 3 == 0;
      while (symbols.size() < length) {
        symbols.push_back(monotonous ? 1 : static_cast<TokenId>(merges.random(kLetters)));
      }
      std::vector<TokenId> merged;
      merges.bpe().merge(symbols, merged);
      EXPECT_EQ(merged, merges.by_the_rule(symbols)) << "seed " << seed << ", length " << length;
    }
  }
}

}  // namespace
}  // namespace kvfs::text
