// The collector: what nothing refers to goes, what anything keeps stays, jobs run meanwhile.
#include <atomic>
#include <thread>

#include "tests/engine/store/fixture.h"

namespace kvfs::store {
namespace {

using CollectorTest = StoreTest;

TEST_F(CollectorTest, RemovingEveryStateGivesEveryByteBack) {
  const StateId a = add_state("a", 1, 3), b = add_state("b", 2, 2), c = fork(a, "c");
  const std::uint64_t stored = store->statistics().bytes_stored;
  remove(c);
  remove(a);
  remove(b);
  std::uint64_t freed = 0;  // the collector's own thread may have been sooner
  const auto collected = store->collect();
  ASSERT_TRUE(collected) << collected.error().message();
  freed += *collected;
  EXPECT_LE(freed, stored);
  EXPECT_EQ(store->statistics(), StoreStatistics{});
  expect_sound();
}

TEST_F(CollectorTest, RunsByItselfSoonAfterAStateIsRemoved) {
  remove(add_state("a", 1, 2));
  for (int i = 0; i < 100 && store->statistics().chunks != 0; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  EXPECT_EQ(store->statistics(), StoreStatistics{});
}

TEST_F(CollectorTest, WhatAnotherStateSharesStays) {
  const StateId a = add_state("a", 1, 3), b = add_state("b", 1, 2);
  const VersionRecord version = version_of(b);
  remove(a);
  ASSERT_TRUE(store->collect());
  EXPECT_EQ(store->statistics().blocks, 2u);
  EXPECT_EQ(store->statistics().chunks, 2u * 3 * 2);
  EXPECT_EQ(version_of(b).root, version.root);
  EXPECT_TRUE(store->read_segment(store->block(version.blocks[1])->segments[0]));
  expect_sound();
}

TEST_F(CollectorTest, AddedBlocksLiveUntilAVersionListsThemAndGoesAgain) {
  const BlockId block = add(model.block(1, 0));
  ASSERT_TRUE(store->collect());
  EXPECT_TRUE(store->block(block));
  remove(add_state("a", std::vector{block}));
  ASSERT_TRUE(store->collect());
  EXPECT_EQ(store->block(block).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(store->statistics().chunks, 0u);
}

TEST_F(CollectorTest, ABlockAddedTwiceOutlivesTheFirstVersion) {
  const BlockId first = add(model.block(1, 0));
  const auto second = store->add_block(model.block(1, 0), DType::kBF16, chunk::CodecId::kZh);
  ASSERT_EQ(first, second->id());
  remove(add_state("a", std::vector{first}));
  ASSERT_TRUE(store->collect());
  EXPECT_TRUE(add_state("b", std::vector{second->id()}));
  expect_sound();
}

TEST_F(CollectorTest, OthersWhoReadABlockDoNotUnpinIt) {
  const BlockId block = add(model.block(1, 0));
  store->pin(block).reset();
  ASSERT_TRUE(store->collect());
  EXPECT_TRUE(store->block(block));
}

TEST_F(CollectorTest, PinnedBlocksStayUntilUnpinned) {
  const BlockId block = add(model.block(1, 0));
  const StateId state = add_state("a", std::vector{block});
  auto one = store->pin(block), two = store->pin(block);
  ASSERT_TRUE(one && two);
  remove(state);
  one.reset();
  ASSERT_TRUE(store->collect());
  EXPECT_TRUE(store->block(block));
  two.reset();
  ASSERT_TRUE(store->collect());
  EXPECT_FALSE(store->block(block));
  EXPECT_FALSE(store->pin(block));
  EXPECT_EQ(store->statistics(), StoreStatistics{});
}

TEST_F(CollectorTest, AnUnpinnedBlockThatNothingCameToListGoes) {
  const BlockId block = add(model.block(1, 0));
  pins.clear();
  ASSERT_TRUE(store->collect());
  EXPECT_FALSE(store->block(block));
}

TEST_F(CollectorTest, BlocksLeftByACrashGoAfterOpening) {
  add(model.block(1, 0));
  add_state("kept", 2, 1);
  reopen();
  ASSERT_TRUE(store->collect());
  EXPECT_EQ(store->statistics().blocks, 1u);
  EXPECT_EQ(store->statistics().chunks, 3u * 2);
  expect_sound();
}

TEST_F(CollectorTest, APrefixIsFoundByItsTokensAndGoesWithItsBlock) {
  const BlockKey start = first_key({.kernel_class = "cpu"});
  NewBlock block = model.block(1, 0);
  block.previous_key = start;
  block.key = next_key(start, block.tokens, true);
  const BlockId id = add(block);
  EXPECT_EQ(store->find_prefix(start, block.key, block.tokens), id);
  auto generated = block.tokens;
  for (BlockToken& token : generated) token.path = TokenPath::kGenerated;
  EXPECT_EQ(store->find_prefix(start, block.key, generated), id)
      << "the key says whether it matters";
  auto others = block.tokens;
  ++others[7].token;
  EXPECT_EQ(store->find_prefix(start, block.key, others), std::nullopt);
  EXPECT_EQ(store->find_prefix(block.key, block.key, block.tokens), std::nullopt);
  EXPECT_EQ(store->find_prefix(start, start, block.tokens), std::nullopt);

  remove(add_state("a", std::vector{id}));
  ASSERT_TRUE(store->collect());
  EXPECT_EQ(store->find_prefix(start, block.key, block.tokens), std::nullopt);
}

TEST_F(CollectorTest, ABlockWithoutAKeyIsNeverInThePrefixIndex) {
  add(model.block(1, 0));
  EXPECT_EQ(store->find_prefix({}, {}, model.block(1, 0).tokens), std::nullopt);
}

TEST_F(CollectorTest, KeysPartWhereAnythingThatDecidesBitsDiffers) {
  const PrefixScope scope{.kernel_class = "cpu"};
  PrefixScope other_class = scope, other_dtype = scope, owned = scope, owned_by_another = scope;
  other_class.kernel_class = "cuda";
  other_dtype.kv_dtype = DType::kF32;
  owned.owner = 0;
  owned_by_another.owner = 1;
  std::vector<BlockKey> keys;
  for (const auto& s : {scope, other_class, other_dtype, owned, owned_by_another}) {
    keys.push_back(first_key(s));
  }
  std::vector<BlockToken> tokens = {{1, 0}, {2, 1}};
  const BlockKey base = next_key(keys[0], tokens, false);
  keys.push_back(base);
  keys.push_back(next_key(base, tokens, false));
  tokens[1].path = TokenPath::kGenerated;
  keys.push_back(next_key(keys[0], tokens, false));
  EXPECT_EQ(next_key(keys[0], tokens, true), base) << "one path: how a token came does not matter";
  tokens[1] = {3, 1};
  keys.push_back(next_key(keys[0], tokens, false));
  tokens[1] = {2, 2};
  keys.push_back(next_key(keys[0], tokens, false));
  tokens.pop_back();
  keys.push_back(next_key(keys[0], tokens, false));
  std::sort(keys.begin(), keys.end());
  EXPECT_EQ(std::adjacent_find(keys.begin(), keys.end()), keys.end());
}

TEST_F(CollectorTest, EverythingLiveSurvivesCollectionsThatRunWhileBlocksComeAndGo) {
  std::atomic<bool> stop = false;
  std::jthread collector([&] {
    while (!stop) EXPECT_TRUE(store->collect());
  });
  // Two writers share seeds, so that each keeps hitting chunks that the other has just let go of.
  std::vector<std::jthread> writers;
  std::vector<std::vector<std::pair<StateId, unsigned>>> alive(2);
  for (std::size_t w = 0; w < 2; ++w) {
    writers.emplace_back([&, w] {
      for (unsigned i = 0; i < 60; ++i) {
        const unsigned seed = i % 5;
        const std::string name = std::to_string(w) + "-" + std::to_string(i);
        alive[w].emplace_back(add_state(name, seed, 2), seed);
        if (i % 3 != 0) {
          remove(alive[w].front().first);
          alive[w].erase(alive[w].begin());
        }
      }
    });
  }
  writers.clear();
  stop = true;
  collector.join();
  for (const auto& states : alive) {
    for (const auto& [state, seed] : states) {
      const VersionRecord version = version_of(state);
      for (int b = 0; b < 2; ++b) {
        const auto block = store->block(version.blocks[static_cast<std::size_t>(b)]);
        ASSERT_TRUE(block) << block.error().message();
        for (std::size_t s = 0; s < block->segments.size(); ++s) {
          const auto piece = store->read_segment(block->segments[s]);
          ASSERT_TRUE(piece) << piece.error().message();
          EXPECT_EQ(piece->key, model.block(seed, b).pieces[s].key);
        }
      }
    }
  }
  expect_sound();
}

}  // namespace
}  // namespace kvfs::store
