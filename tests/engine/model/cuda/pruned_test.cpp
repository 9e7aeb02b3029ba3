// Pruned histories on the fast path, of a real model: near the reference mode's, and the same bits
// however they are cut, batched, kept and brought back. Tiny models against transformers:
// pruned_test with KVFS_DEVICE=cuda.
#include <algorithm>
#include <cmath>
#include <iostream>
#include <iterator>
#include <random>

#include "engine/prune/choose.h"
#include "tests/engine/model/cuda/loaded_model.h"

namespace kvfs::model::cuda {
namespace {

constexpr std::size_t kRead = 700;

class CudaPruned : public CudaModelTest {
 protected:
  static std::vector<TokenId> tokens(std::size_t count) {
    std::mt19937 random(5);
    std::vector<TokenId> out(count);
    for (TokenId& token : out) token = static_cast<TokenId>(random() % 49000);
    return out;
  }
  // A third of each head's entries, another one each, but all of the first and last 30.
  static prune::Kept thirds(Model& model, const Sequence& sequence) {
    std::mt19937 random(9);
    prune::Kept kept;
    for (std::size_t layer = 0; layer < model.info().layers.size(); ++layer) {
      auto& heads = kept.emplace_back();
      for (const auto& all :
           value_of(model.positions(sequence, static_cast<std::uint16_t>(layer)))) {
        auto& entries = heads.emplace_back();
        for (std::size_t i = 0; i < all.size(); ++i) {
          if (i < 30 || i + 30 > all.size() || random() % 3 == 0)
            entries.push_back(static_cast<std::int32_t>(i));
        }
      }
    }
    return kept;
  }
  static std::unique_ptr<Sequence> pruned(Model& model) {
    auto sequence = model.new_sequence();
    must(model.prefill(*sequence, tokens(kRead), {}));
    must(model.prune(*sequence, thirds(model, *sequence)));
    return sequence;
  }
  static std::vector<KvPiece> all_kv(Model& model, const Sequence& sequence) {
    std::vector<KvPiece> all;
    for (int block = 0; block * kBlockTokens < sequence.next_pos(); ++block) {
      for (std::uint16_t layer = 0; layer < model.info().layers.size(); ++layer) {
        for (auto& piece : value_of(model.kv_out(sequence, layer, block)))
          all.push_back(std::move(piece));
      }
    }
    return all;
  }
  static double error_of(const std::vector<float>& got, const std::vector<float>& wanted) {
    double error = 0;
    double norm = 0;
    for (std::size_t i = 0; i < got.size(); ++i) {
      error += std::pow(static_cast<double>(got[i]) - wanted[i], 2);
      norm += std::pow(static_cast<double>(wanted[i]), 2);
    }
    return std::sqrt(error / norm);
  }
};

TEST_F(CudaPruned, TheFastPathIsNearTheReference) {
  Model& fast = model(Compute::kFast);
  Model& exact = model(Compute::kReference);
  const auto a = pruned(fast);
  const auto b = pruned(exact);
  const auto rest = tokens(60);
  EXPECT_LT(error_of(read(fast, *a, rest), read(exact, *b, rest)), 0.03);
  for (int i = 0; i < 5; ++i)
    EXPECT_LT(error_of(generate(fast, *a, 100 + i), generate(exact, *b, 100 + i)), 0.03) << i;
}

TEST_F(CudaPruned, CutsBatchesAndAWayOutAndInDoNotChangeABit) {
  Model& fast = model(Compute::kFast);
  const auto whole = pruned(fast);
  const auto parts = fast.fork(*whole);
  const auto rest = tokens(300);
  const auto logits = read(fast, *whole, rest);
  must(fast.prefill(*parts, std::span(rest).first(7), {}));
  must(fast.prefill(*parts, std::span(rest).subspan(7, 110), {}));
  EXPECT_EQ(read(fast, *parts, std::span(rest).subspan(117)), logits);

  // Beside one that was not pruned, and one that was, in a step of three.
  const auto dense = fast.new_sequence();
  must(fast.prefill(*dense, tokens(400), {}));
  const auto dense_alone = fast.fork(*dense);
  const auto alone = fast.fork(*whole);
  std::vector<std::vector<float>> together(3, std::vector<float>(logits.size()));
  DecodeItem items[] = {
      {dense.get(), 5, together[0]}, {whole.get(), 6, together[1]}, {parts.get(), 7, together[2]}};
  must(fast.decode(items));
  EXPECT_EQ(generate(fast, *dense_alone, 5), together[0]);
  EXPECT_EQ(generate(fast, *alone, 6), together[1]);

  const auto copy = fast.new_sequence();
  for (const KvPiece& piece : all_kv(fast, *whole)) must(fast.kv_in(*copy, piece));
  must(fast.set_next_pos(*copy, whole->next_pos()));
  for (int i = 0; i < 3; ++i)
    EXPECT_EQ(generate(fast, *copy, 50 + i), generate(fast, *whole, 50 + i)) << i;
  EXPECT_EQ(read(fast, *copy, rest), read(fast, *whole, rest));
}

TEST_F(CudaPruned, MemoryIsWhatTheLengthsSay) {
  const Loaded loaded = load(Compute::kFast);
  Model& fast = *loaded.model;
  const auto sequence = fast.new_sequence();
  must(fast.prefill(*sequence, tokens(768), {}));
  const prune::Kept kept = thirds(fast, *sequence);
  must(fast.prune(*sequence, kept));
  std::uint64_t entries = 0;
  for (const auto& layer : kept)
    for (const auto& head : layer) entries += head.size();
  const std::uint64_t bytes = entries * 64 * 2 * 2;
  EXPECT_GE(fast.kv_bytes_used(), bytes);
  EXPECT_LT(fast.kv_bytes_used(), bytes + bytes / 50) << "the lists of entries are small";
}

TEST_F(CudaPruned, WhatTheNewestQueryLooksAtIsNearTheReference) {
  Model& fast = model(Compute::kFast);
  Model& exact = model(Compute::kReference);
  const auto ids = tokens(kRead + 20);
  prune::Observation seen[2];
  for (int which = 0; which < 2; ++which) {
    Model& of = which == 0 ? fast : exact;
    const auto sequence = pruned(of);
    must(of.prefill(*sequence, std::span(ids).subspan(kRead), {}));
    seen[which] =
        value_of(of.observe(*sequence, prune::Needs::kWindowQueries, std::span(ids).last(16)));
  }
  for (std::size_t layer = 0; layer < seen[0].size(); ++layer) {
    EXPECT_EQ(seen[0][layer].positions, seen[1][layer].positions);
    for (std::size_t head = 0; head < seen[0][layer].scores.size(); ++head) {
      const auto& scores = seen[0][layer].scores[head];
      double sum = 0;
      for (const float score : scores) sum += score;
      EXPECT_NEAR(sum, 16.0, 0.01) << "each query's weights sum to 1";
      EXPECT_LT(error_of(scores, seen[1][layer].scores[head]), 0.1) << layer << " " << head;
    }
  }
}

// What a method is told of a sequence that read these tokens.
prune::Observation look(Model& model, const Sequence& sequence, const prune::Method& method,
                        std::span<const TokenId> text) {
  const prune::Repetition how{.ask = {11, 12, 13}, .ask_on = {14, 15, 16}, .answer = {17}};
  const auto observer =
      value_of(model.look_again(sequence, value_of(prune::make_plan(method, text, 2048, how))));
  while (!value_of(observer->read())) continue;
  return value_of(observer->take());
}

TEST_F(CudaPruned, WhatMethodsThatReadTheTextAgainChooseIsNearTheReference) {
  const auto ids = tokens(kRead);
  for (const prune::Method& method : {prune::Method(prune::H2o{}), prune::Method(prune::Expected{}),
                                      prune::Method(prune::KvZip{})}) {
    prune::Kept kept[2];
    for (int which = 0; which < 2; ++which) {
      Model& of = model(which == 0 ? Compute::kFast : Compute::kReference);
      const auto sequence = of.new_sequence();
      must(of.prefill(*sequence, ids, {}));
      kept[which] = value_of(prune::choose(method, look(of, *sequence, method, ids)));
    }
    std::size_t chosen = 0;
    std::size_t common = 0;
    for (std::size_t layer = 0; layer < kept[0].size(); ++layer) {
      for (std::size_t head = 0; head < kept[0][layer].size(); ++head) {
        prune::KeptEntries both;
        std::ranges::set_intersection(kept[0][layer][head], kept[1][layer][head],
                                      std::back_inserter(both));
        chosen += kept[0][layer][head].size();
        common += both.size();
      }
    }
    const double share = static_cast<double>(common) / static_cast<double>(chosen);
    EXPECT_GT(share, 0.95) << prune::name_of(method);
    std::cout << prune::name_of(method) << ": " << share << " of the choice is the reference's\n";
  }
}

TEST_F(CudaPruned, WhatIsSeenOfAnEntryDoesNotDependOnHowItIsKept) {
  Model& fast = model(Compute::kFast);
  const auto ids = tokens(kRead);
  const auto whole = fast.new_sequence();
  must(fast.prefill(*whole, ids, {}));
  const auto part = fast.fork(*whole);
  const prune::Kept kept = thirds(fast, *whole);
  must(fast.prune(*part, kept));
  for (const prune::Method& method : {prune::Method(prune::Knorm{}), prune::Method(prune::H2o{}),
                                      prune::Method(prune::Expected{})}) {
    const auto before = look(fast, *whole, method, ids);
    const auto after = look(fast, *part, method, ids);
    for (std::size_t layer = 0; layer < before.size(); ++layer) {
      const std::size_t group = before[layer].scores.size() / kept[layer].size();
      for (std::size_t head = 0; head < before[layer].scores.size(); ++head) {
        std::vector<float> wanted;
        for (const std::int32_t i : kept[layer][head / group])
          wanted.push_back(before[layer].scores[head][static_cast<std::size_t>(i)]);
        ASSERT_EQ(after[layer].scores[head], wanted) << prune::name_of(method) << " " << layer;
      }
    }
  }
}

TEST_F(CudaPruned, MovedEntriesGoOnNearTheReferenceAndWithTheSameBits) {
  Model& fast = model(Compute::kFast);
  Model& exact = model(Compute::kReference);
  const auto a = pruned(fast);
  const auto b = pruned(exact);
  must(fast.compact(*a));
  must(exact.compact(*b));
  ASSERT_EQ(a->next_pos(), b->next_pos());
  ASSERT_LT(a->next_pos(), static_cast<Position>(kRead / 2));
  const auto copy = fast.new_sequence();
  for (const KvPiece& piece : all_kv(fast, *a)) must(fast.kv_in(*copy, piece));
  must(fast.set_next_pos(*copy, a->next_pos()));
  const auto parts = fast.fork(*a);

  const auto rest = tokens(60);
  const auto logits = read(fast, *a, rest);
  EXPECT_LT(error_of(logits, read(exact, *b, rest)), 0.03);
  EXPECT_EQ(read(fast, *copy, rest), logits);
  must(fast.prefill(*parts, std::span(rest).first(23), {}));
  EXPECT_EQ(read(fast, *parts, std::span(rest).subspan(23)), logits);
  for (int i = 0; i < 3; ++i) {
    const auto next = generate(fast, *a, 100 + i);
    EXPECT_LT(error_of(next, generate(exact, *b, 100 + i)), 0.03) << i;
    EXPECT_EQ(generate(fast, *copy, 100 + i), next) << i;
  }
}

}  // namespace
}  // namespace kvfs::model::cuda
