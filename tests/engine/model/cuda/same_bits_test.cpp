// Same history, same bits: KV and logits depend on a token's history and path, and on nothing else.
#include <algorithm>
#include <atomic>
#include <random>
#include <thread>

#include "tests/engine/model/cuda/loaded_model.h"
#include "tests/engine/model/cuda/stored.h"

namespace kvfs::model::cuda {
namespace {

std::vector<TokenId> random_tokens(int count, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_int_distribution<TokenId> draw(100, 40000);
  std::vector<TokenId> out;
  for (int i = 0; i < count; ++i) out.push_back(draw(random));
  return out;
}

class CudaSameBits : public CudaModelTest {
 protected:
  Model& model() { return CudaModelTest::model(GetParam()); }

  // Reads tokens in parts of the given sizes, the rest in one go; the logits after the last.
  std::vector<float> read_in(Sequence& sequence, std::span<const TokenId> tokens,
                             std::vector<int> parts) {
    for (const int part : parts) {
      must(model().prefill(sequence, tokens.first(static_cast<std::size_t>(part)), {}));
      tokens = tokens.subspan(static_cast<std::size_t>(part));
    }
    return read(model(), sequence, tokens);
  }

  // All KV of a sequence.
  std::vector<KvPiece> kv(const Sequence& sequence) {
    std::vector<KvPiece> out;
    const auto layers = static_cast<std::uint16_t>(model().info().layers.size());
    for (std::uint16_t layer = 0; layer < layers; ++layer) {
      for (int block = 0; block * kBlockTokens < sequence.next_pos(); ++block) {
        for (KvPiece& piece : value_of(model().kv_out(sequence, layer, block)))
          out.push_back(std::move(piece));
      }
    }
    return out;
  }
  static void expect_same(const std::vector<KvPiece>& a, const std::vector<KvPiece>& b) {
    ASSERT_EQ(a.size(), b.size());
    for (std::size_t i = 0; i < a.size(); ++i) {
      const std::string where = "layer " + std::to_string(a[i].layer) + ", position " +
                                std::to_string(a[i].positions.front());
      ASSERT_EQ(a[i].positions, b[i].positions) << where;
      ASSERT_TRUE(same_bits(a[i].key, b[i].key)) << "keys of " << where;
      ASSERT_TRUE(same_bits(a[i].value, b[i].value)) << "values of " << where;
    }
  }
};

TEST_P(CudaSameBits, ReadingInPartsEqualsReadingAtOnce) {
  const auto tokens = random_tokens(1100, 1);
  const auto whole = model().new_sequence();
  const auto logits = read(model(), *whole, tokens);
  const auto expected = kv(*whole);
  const std::vector<std::vector<int>> cuts{{300, 100}, {150, 250},           {512},  {511, 2},
                                           {1, 1, 1},  {256, 256, 256, 256}, {1099}, {600, 1, 423}};
  for (const auto& cut : cuts) {
    const auto parts = model().new_sequence();
    EXPECT_TRUE(same_bits(read_in(*parts, tokens, cut), logits)) << "first part " << cut.front();
    expect_same(kv(*parts), expected);
  }
}

TEST_P(CudaSameBits, ManyGridsTogetherEqualOneAfterTheOther) {
  const auto tokens = random_tokens(4800, 7);  // eight grids, one, and a part of one
  const auto whole = model().new_sequence();
  const auto logits = read(model(), *whole, tokens);
  for (const auto& cut : {std::vector<int>(9, 512), std::vector<int>{300, 4100}}) {
    const auto parts = model().new_sequence();
    EXPECT_TRUE(same_bits(read_in(*parts, tokens, cut), logits)) << "first part " << cut.front();
    expect_same(kv(*parts), kv(*whole));
  }
}

TEST_P(CudaSameBits, FourHundredTokensAreThreeHundredAndOneHundred) {
  const auto tokens = random_tokens(400, 2);
  const auto whole = model().new_sequence();
  const auto logits = read_in(*whole, tokens, {});
  for (const int first : {300, 150}) {
    const auto parts = model().new_sequence();
    EXPECT_TRUE(same_bits(read_in(*parts, tokens, {first}), logits));
    expect_same(kv(*parts), kv(*whole));
  }
}

TEST_P(CudaSameBits, ABatchOfSixteenEqualsSixteenBatchesOfOne) {
  constexpr int kSteps = 6;
  const int lengths[16] = {1, 255, 256, 257, 40, 511, 512, 513, 3, 900, 100, 254, 77, 600, 2, 768};
  std::vector<std::unique_ptr<Sequence>> starts;
  for (unsigned i = 0; i < 16; ++i) {
    starts.push_back(model().new_sequence());
    must(model().prefill(*starts.back(), random_tokens(lengths[i], 100 + i), {}));
  }
  const auto vocab = static_cast<std::size_t>(model().info().vocab_size);
  // Logits of the last step, one sequence after the other, and all KV.
  const auto run = [&](std::size_t batch) {
    std::vector<float> logits(16 * vocab);
    std::vector<std::unique_ptr<Sequence>> forks;
    for (const auto& start : starts) forks.push_back(model().fork(*start));
    for (int step = 0; step < kSteps; ++step) {
      for (std::size_t first = 0; first < 16; first += batch) {
        std::vector<DecodeItem> items;
        for (std::size_t i = first; i < std::min<std::size_t>(16, first + batch); ++i) {
          items.push_back({forks[i].get(),
                           static_cast<TokenId>(500 + 31 * i + static_cast<std::size_t>(step)),
                           std::span(logits).subspan(i * vocab, vocab)});
        }
        must(model().decode(items));
      }
    }
    std::vector<std::vector<KvPiece>> pieces;
    for (const auto& fork : forks) pieces.push_back(kv(*fork));
    return std::pair(std::move(logits), std::move(pieces));
  };
  const auto alone = run(1);
  for (const std::size_t batch : {2U, 4U, 7U, 16U}) {
    const auto together = run(batch);
    EXPECT_TRUE(same_bits(alone.first, together.first)) << "batches of " << batch;
    for (std::size_t i = 0; i < 16; ++i) expect_same(alone.second[i], together.second[i]);
  }
}

TEST_P(CudaSameBits, AForkContinuesAsTheOriginalWould) {
  const auto tokens = random_tokens(700, 3);
  const auto original = model().new_sequence();
  must(model().prefill(*original, std::span(tokens).first(300), {}));
  const auto before = kv(*original);
  const auto pages = model().kv_bytes_used();
  const auto fork = model().fork(*original);
  EXPECT_EQ(model().kv_bytes_used(), pages) << "a fork copies nothing";

  // A history of its own first: it must not show in the original.
  const auto other = model().fork(*original);
  must(model().prefill(*other, random_tokens(90, 4), {}));
  generate(model(), *other, 1000);
  expect_same(kv(*original), before);

  const auto rest = std::span(tokens).subspan(300);
  const auto from_fork = read(model(), *fork, rest);
  expect_same(kv(*original), before);
  EXPECT_TRUE(same_bits(from_fork, read(model(), *original, rest)));
  for (const TokenId token : {500, 501, 502}) {
    EXPECT_TRUE(same_bits(generate(model(), *fork, token), generate(model(), *original, token)));
  }
  expect_same(kv(*fork), kv(*original));
}

TEST_P(CudaSameBits, WhatWasTakenOutAndPutBackContinuesTheSame) {
  for (const int count : {513, 600, 1024}) {
    const auto original = model().new_sequence();
    read(model(), *original, random_tokens(count, 5));
    generate(model(), *original, 700);
    const auto pieces = kv(*original);
    const auto restored = model().new_sequence();
    EXPECT_FALSE(model().set_next_pos(*restored, original->next_pos())) << "nothing is there yet";
    for (const KvPiece& piece : pieces) must(model().kv_in(*restored, piece));
    must(model().set_next_pos(*restored, original->next_pos()));
    expect_same(kv(*restored), pieces);
    for (const TokenId token : {800, 801}) {
      EXPECT_TRUE(
          same_bits(generate(model(), *restored, token), generate(model(), *original, token)));
    }
    const auto more = random_tokens(70, 6);
    EXPECT_TRUE(same_bits(read(model(), *restored, more), read(model(), *original, more)));
    expect_same(kv(*restored), kv(*original));
  }
}

TEST_P(CudaSameBits, PiecesComeFromManyThreadsInAnyOrderWhileOthersGenerate) {
  const auto original = model().new_sequence();
  read(model(), *original, random_tokens(1300, 8));
  const auto pieces = kv(*original);
  const auto restored = model().new_sequence();
  EXPECT_TRUE(value_of(model().kv_room(*restored, original->next_pos())));
  std::atomic<std::size_t> next = 0;
  std::atomic<int> failed = 0;
  std::vector<std::jthread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (std::size_t mine = next++; mine < pieces.size(); mine = next++) {
        if (!model().kv_in(*restored, pieces[pieces.size() - 1 - mine])) ++failed;
      }
    });
  }
  const auto beside = model().fork(*original);
  const auto expected = generate(model(), *beside, 900);
  threads.clear();
  ASSERT_EQ(failed, 0);
  must(model().set_next_pos(*restored, original->next_pos()));
  expect_same(kv(*restored), pieces);
  EXPECT_TRUE(same_bits(generate(model(), *restored, 900), expected));

  const auto dropped = model().new_sequence();  // while its KV is on the way
  must(value_of(model().kv_room(*dropped, 256)) ? model().kv_in(*dropped, pieces[0]) : Status{});
}

TEST_P(CudaSameBits, WhatTheStoreKeepsIsDecodedOnTheDevice) {
  ASSERT_TRUE(model().takes_stored());
  const auto original = model().new_sequence();
  read(model(), *original, random_tokens(1000, 12));
  const auto pieces = kv(*original);
  for (const chunk::CodecId codec : {chunk::CodecId::kZh, chunk::CodecId::kRaw}) {
    const auto restored = model().new_sequence();
    auto piece = stored(pieces[0], model().info().kv_dtype, codec);
    EXPECT_FALSE(model().stored_in(*restored, piece)) << "there is no room yet";
    EXPECT_TRUE(value_of(model().kv_room(*restored, original->next_pos())));
    ++piece.keys[0].shape.width;
    EXPECT_FALSE(model().stored_in(*restored, piece)) << "of another width";
    piece = stored(pieces[0], model().info().kv_dtype, codec);
    piece.values.pop_back();
    EXPECT_FALSE(model().stored_in(*restored, piece)) << "heads are missing";
    for (const KvPiece& each : pieces) {
      must(model().stored_in(*restored, stored(each, model().info().kv_dtype, codec)));
    }
    must(model().set_next_pos(*restored, original->next_pos()));
    expect_same(kv(*restored), pieces);
    const auto beside = model().fork(*original);
    EXPECT_TRUE(same_bits(generate(model(), *restored, 900), generate(model(), *beside, 900)));
  }
}

TEST_P(CudaSameBits, TheLastTokenComputedAgainGivesTheSame) {
  for (const int count : {256, 257, 512, 513, 700}) {
    const auto tokens = random_tokens(count, 7);
    const auto sequence = model().new_sequence();
    const auto after_reading = read(model(), *sequence, tokens);
    const auto kv_read = kv(*sequence);
    const auto kept = model().fork(*sequence);
    must(model().truncate(*sequence, count - 1));
    EXPECT_TRUE(same_bits(read(model(), *sequence, {&tokens.back(), 1}), after_reading)) << count;
    expect_same(kv(*sequence), kv_read);

    const auto after_generating = generate(model(), *sequence, 900);
    const auto kv_generated = kv(*sequence);
    must(model().truncate(*sequence, count));
    EXPECT_TRUE(same_bits(generate(model(), *sequence, 900), after_generating)) << count;
    expect_same(kv(*sequence), kv_generated);
    expect_same(kv(*kept), kv_read);
  }
}

TEST_P(CudaSameBits, WhereThePagesLieChangesNothing) {
  const auto tokens = random_tokens(900, 8);
  const auto first = model().new_sequence();
  const auto logits = read(model(), *first, tokens);
  // Holes in the memory, and another sequence that grows between this one's parts.
  std::vector<std::unique_ptr<Sequence>> others;
  for (unsigned i = 0; i < 8; ++i) {
    others.push_back(model().new_sequence());
    must(model().prefill(*others.back(), random_tokens(300, 9 + i), {}));
  }
  for (std::size_t i = 0; i < others.size(); i += 2) others[i].reset();
  const auto second = model().new_sequence();
  auto rest = std::span<const TokenId>(tokens);
  for (int i = 0; i < 3; ++i) {
    must(model().prefill(*second, rest.first(250), {}));
    rest = rest.subspan(250);
    must(model().prefill(*others[1], random_tokens(200, 30), {}));
  }
  EXPECT_TRUE(same_bits(read(model(), *second, rest), logits));
  expect_same(kv(*second), kv(*first));
}

INSTANTIATE_TEST_SUITE_P(Modes, CudaSameBits, testing::Values(Compute::kFast, Compute::kReference),
                         [](const auto& mode) {
                           return mode.param == Compute::kFast ? "Fast" : "Reference";
                         });

}  // namespace
}  // namespace kvfs::model::cuda
