// Same history, same bits: on the real model, in the fast mode.
#include <atomic>
#include <numeric>
#include <thread>

#include "tests/engine/model/model_fixture.h"

namespace kvfs::model::testing {
namespace {

class SameBits : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { loaded_ = new Loaded(load(model_path(), Compute::kFast, 2)); }
  static void TearDownTestSuite() {
    delete loaded_;
    loaded_ = nullptr;
  }
  void SetUp() override { ASSERT_TRUE(loaded_->model); }
  Model& model() { return *loaded_->model; }
  std::vector<TokenId> tokens(std::size_t count, std::uint32_t seed = 1) {
    return some_tokens(count, model().info().vocab_size, seed);
  }

 private:
  static Loaded* loaded_;
};
Loaded* SameBits::loaded_ = nullptr;

TEST_F(SameBits, ReadingInPartsEqualsReadingAtOnce) {
  const std::vector<TokenId> ids = tokens(400);
  const auto whole = model().new_sequence();
  const Logits expected = read(model(), *whole, ids);
  const auto parts = model().new_sequence();
  read(model(), *parts, std::span(ids).first(300));
  EXPECT_EQ(read(model(), *parts, std::span(ids).subspan(300)), expected);
  EXPECT_EQ(kv_bytes(model(), *parts), kv_bytes(model(), *whole));
}

TEST_F(SameBits, GeneratedTokensEqualReadOnes) {
  ASSERT_TRUE(model().info().one_path);
  const std::vector<TokenId> ids = tokens(275);
  const auto whole = model().new_sequence();
  const Logits expected = read(model(), *whole, ids);
  const auto one_by_one = model().new_sequence();
  Logits logits;
  read(model(), *one_by_one, std::span(ids).first(200));
  for (std::size_t i = 200; i < ids.size(); ++i) logits = generate(model(), *one_by_one, ids[i]);
  EXPECT_EQ(logits, expected);
  EXPECT_EQ(kv_bytes(model(), *one_by_one), kv_bytes(model(), *whole));
}

TEST_F(SameBits, ABatchOfFourEqualsABatchOfOne) {
  std::vector<std::unique_ptr<Sequence>> alone;
  std::vector<std::unique_ptr<Sequence>> together;
  const std::size_t lengths[] = {3, 40, 255, 270};
  for (std::uint32_t i = 0; i < 4; ++i) {
    alone.push_back(model().new_sequence());
    read(model(), *alone.back(), tokens(lengths[i], i + 1));
    together.push_back(model().fork(*alone.back()));
  }
  for (TokenId token = 500; token < 503; ++token) {
    std::vector<Logits> logits(4, room(model()));
    std::vector<DecodeItem> items;
    for (std::size_t i = 0; i < 4; ++i) items.push_back({together[i].get(), token, logits[i]});
    ASSERT_TRUE(model().decode(items));
    for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(generate(model(), *alone[i], token), logits[i]);
  }
  for (std::size_t i = 0; i < 4; ++i)
    EXPECT_EQ(kv_bytes(model(), *alone[i]), kv_bytes(model(), *together[i]));
}

// Branches look at their parent's pages as one run of rows, at most eight at once; a stranger
// between them, and what each has read since, must not matter.
TEST_F(SameBits, ElevenBranchesBesideStrangersGiveWhatEachGivesAlone) {
  const auto parent = model().new_sequence();
  read(model(), *parent, tokens(520));
  std::vector<std::unique_ptr<Sequence>> alone;
  std::vector<std::unique_ptr<Sequence>> together;
  for (std::uint32_t i = 0; i < 13; ++i) {
    alone.push_back(i == 4 || i == 9 ? model().new_sequence() : model().fork(*parent));
    read(model(), *alone.back(), tokens(i == 4 ? 300 : i + 1, i + 1));
    together.push_back(model().fork(*alone.back()));
  }
  std::vector<Logits> logits(together.size(), room(model()));
  std::vector<DecodeItem> items;
  for (std::size_t i = 0; i < together.size(); ++i)
    items.push_back({together[i].get(), static_cast<TokenId>(500 + i), logits[i]});
  ASSERT_TRUE(model().decode(items));
  for (std::size_t i = 0; i < together.size(); ++i)
    EXPECT_EQ(generate(model(), *alone[i], static_cast<TokenId>(500 + i)), logits[i]) << i;
}

TEST_F(SameBits, AForkContinuesAsTheOriginalAndLeavesItAlone) {
  const auto original = model().new_sequence();
  read(model(), *original, tokens(100));
  const Bytes before = kv_bytes(model(), *original);
  const auto fork = model().fork(*original);
  generate(model(), *fork, 7);  // writes into a page that both share
  EXPECT_EQ(kv_bytes(model(), *original), before);
  const Logits expected = generate(model(), *fork, 9);
  generate(model(), *original, 7);
  EXPECT_EQ(generate(model(), *original, 9), expected);
  EXPECT_EQ(kv_bytes(model(), *original), kv_bytes(model(), *fork));
}

TEST_F(SameBits, WhatKvOutGaveContinuesAsIfNeverGone) {
  const auto original = model().new_sequence();
  read(model(), *original, tokens(300));
  const auto restored = model().new_sequence();
  for (const KvPiece& piece : all_kv(model(), *original))
    ASSERT_TRUE(model().kv_in(*restored, piece));
  ASSERT_TRUE(model().set_next_pos(*restored, 300));
  EXPECT_EQ(kv_bytes(model(), *restored), kv_bytes(model(), *original));
  EXPECT_EQ(generate(model(), *restored, 11), generate(model(), *original, 11));
}

TEST_F(SameBits, ThreadsThatPutKvInBackwardsChangeNothing) {
  const auto original = model().new_sequence();
  read(model(), *original, tokens(300));
  const std::vector<KvPiece> pieces = all_kv(model(), *original);
  const auto restored = model().new_sequence();
  const auto room = model().kv_room(*restored, 300);
  ASSERT_TRUE(room && *room);
  std::atomic<std::size_t> next = pieces.size();
  std::atomic<int> failed = 0;
  std::vector<std::jthread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      for (std::size_t left; (left = next--) > 0 && left <= pieces.size();)
        failed += model().kv_in(*restored, pieces[left - 1]) ? 0 : 1;
    });
  }
  threads.clear();
  EXPECT_EQ(failed, 0);
  ASSERT_TRUE(model().set_next_pos(*restored, 300));
  EXPECT_EQ(kv_bytes(model(), *restored), kv_bytes(model(), *original));
  EXPECT_EQ(generate(model(), *restored, 11), generate(model(), *original, 11));
}

TEST_F(SameBits, TheLastTokenReadAgainGivesTheSameLogits) {
  const std::vector<TokenId> ids = tokens(257);  // the last one is alone on its page
  const auto sequence = model().new_sequence();
  const Logits expected = read(model(), *sequence, ids);
  const std::uint64_t used = model().kv_bytes_used();
  ASSERT_TRUE(model().truncate(*sequence, 256));
  EXPECT_LT(model().kv_bytes_used(), used);
  EXPECT_EQ(read(model(), *sequence, std::span(ids).last(1)), expected);
}

TEST_F(SameBits, AnyNumberOfThreadsGivesTheSame) {
  const std::vector<TokenId> ids = tokens(120);
  const auto sequence = model().new_sequence();
  const Logits expected = read(model(), *sequence, ids);
  const Bytes kv = kv_bytes(model(), *sequence);
  for (const int threads : {1, 3}) {
    const Loaded other = load(model_path(), Compute::kFast, threads);
    ASSERT_TRUE(other.model);
    const auto theirs = other.model->new_sequence();
    EXPECT_EQ(read(*other.model, *theirs, ids), expected) << threads;
    EXPECT_EQ(kv_bytes(*other.model, *theirs), kv) << threads;
  }
}

TEST_F(SameBits, PortableKernelsGiveTheSame) {
  const std::vector<TokenId> ids = tokens(9);
  const auto sequence = model().new_sequence();
  const Logits expected = read(model(), *sequence, ids);
  const Loaded portable = load(model_path(), Compute::kFast, 2, cpu::portable_kernels());
  ASSERT_TRUE(portable.model);
  const auto theirs = portable.model->new_sequence();
  EXPECT_EQ(read(*portable.model, *theirs, ids), expected);
  EXPECT_EQ(kv_bytes(*portable.model, *theirs), kv_bytes(model(), *sequence));
}

// The paths differ in bits there, but each must be stable.
TEST(SameBitsInReferenceMode, ReadingInPartsAndBatchingChangeNothing) {
  const Loaded loaded = load(model_path(), Compute::kReference, 2);
  ASSERT_TRUE(loaded.model);
  Model& model = *loaded.model;
  const std::vector<TokenId> ids = some_tokens(100, model.info().vocab_size);
  const auto whole = model.new_sequence();
  const Logits expected = read(model, *whole, ids);
  const auto parts = model.new_sequence();
  read(model, *parts, std::span(ids).first(37));
  EXPECT_EQ(read(model, *parts, std::span(ids).subspan(37)), expected);
  EXPECT_EQ(kv_bytes(model, *parts), kv_bytes(model, *whole));

  std::vector<std::unique_ptr<Sequence>> sequences;
  std::vector<Logits> logits(3, room(model));
  std::vector<DecodeItem> items;
  for (std::size_t i = 0; i < 3; ++i) {
    sequences.push_back(model.fork(*whole));
    items.push_back({sequences[i].get(), static_cast<TokenId>(40 + i), logits[i]});
  }
  ASSERT_TRUE(model.decode(items));
  EXPECT_EQ(generate(model, *whole, 42), logits[2]);
}

}  // namespace
}  // namespace kvfs::model::testing
