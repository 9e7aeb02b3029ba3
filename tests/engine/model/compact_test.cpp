// Entries moved to consecutive positions, against transformers going on from a cache whose keys
// were turned by hand (goldens/make_compact_goldens.py): every kind of RoPE of the families.
#include <gmock/gmock.h>

#include <boost/json.hpp>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "tests/engine/model/model_fixture.h"

namespace kvfs::model::testing {
namespace {

using prune::Kept;
using ::testing::HasSubstr;
using Positions = std::vector<std::vector<std::vector<Position>>>;  // [layer][head]

const std::filesystem::path kFamilies = goldens() / "families";

struct Golden {
  std::vector<TokenId> ids;
  std::size_t at = 0;
  Positions kept;
  std::vector<Logits> logits;  // after each of the ids from `at` on
};

Golden golden_of(const std::string& family) {
  std::ifstream file(kFamilies / family / "compact.json");
  std::stringstream text;
  text << file.rdbuf();
  const boost::json::value json = boost::json::parse(text.str());
  return {.ids = boost::json::value_to<std::vector<TokenId>>(json.at("ids")),
          .at = json.at("at").to_number<std::size_t>(),
          .kept = boost::json::value_to<Positions>(json.at("kept")),
          .logits = boost::json::value_to<std::vector<Logits>>(json.at("logits"))};
}

double error_of(const Logits& got, const Logits& wanted) {
  double error = 0, norm = 0;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    error += std::pow(static_cast<double>(got.at(i)) - wanted[i], 2);
    norm += std::pow(static_cast<double>(wanted[i]), 2);
  }
  return std::sqrt(error / norm);
}

Positions positions_of(Model& model, const Sequence& sequence) {
  Positions all;
  for (std::size_t layer = 0; layer < model.info().layers.size(); ++layer)
    all.push_back(*model.positions(sequence, static_cast<std::uint16_t>(layer)));
  return all;
}

// Of a sequence that holds everything: these.
void keep(Model& model, Sequence& sequence, const Positions& positions) {
  const Status done = model.prune(sequence, positions);
  ASSERT_TRUE(done) << done.error().message();
}

std::vector<std::string> families() {
  std::vector<std::string> names;
  for (const auto& folder : std::filesystem::directory_iterator(kFamilies)) {
    if (std::filesystem::exists(folder.path() / "compact.json"))
      names.push_back(folder.path().filename().string());
  }
  std::ranges::sort(names);
  return names;
}

class Compact : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Families, Compact, ::testing::ValuesIn(families()),
                         [](const auto& of) { return of.param; });

TEST_P(Compact, GoesOnAsTransformersDoesFromKeysTurnedByHand) {
  const Loaded reference = load_described(kFamilies / GetParam(), Compute::kReference);
  ASSERT_TRUE(reference.model);
  Model& model = *reference.model;
  const Golden golden = golden_of(GetParam());
  const auto n = static_cast<Position>(golden.kept[0][0].size());

  const auto sequence = model.new_sequence();
  read(model, *sequence, std::span(golden.ids).first(golden.at));
  keep(model, *sequence, golden.kept);
  const Status moved = model.compact(*sequence);
  ASSERT_TRUE(moved) << moved.error().message();
  EXPECT_EQ(sequence->next_pos(), n);
  std::vector<Position> wanted(static_cast<std::size_t>(n));
  std::iota(wanted.begin(), wanted.end(), 0);
  for (const auto& layer : positions_of(model, *sequence))
    EXPECT_THAT(layer, ::testing::Each(wanted));

  const std::size_t half = golden.at + golden.logits.size() / 2;
  const auto some = std::span(golden.ids).subspan(golden.at, half - golden.at);
  EXPECT_LT(error_of(read(model, *sequence, some), golden.logits[half - golden.at - 1]), 1e-3);
  for (std::size_t i = half; i < golden.ids.size(); ++i) {
    EXPECT_LT(error_of(generate(model, *sequence, golden.ids[i]), golden.logits[i - golden.at]),
              1e-3)
        << i;
  }
}

class CompactLlama : public ::testing::Test {
 protected:
  const Loaded loaded_ = load_described(kFamilies / "llama", Compute::kFast);
  Model& model() { return *loaded_.model; }

  std::unique_ptr<Sequence> ragged(Position end) {
    auto sequence = model().new_sequence();
    read(model(), *sequence, some_tokens(static_cast<std::size_t>(end), model().info().vocab_size));
    std::mt19937 random(3);
    Positions kept = positions_of(model(), *sequence);
    std::uint32_t left = 2;
    for (auto& layer : kept) {
      for (auto& head : layer) {
        std::erase_if(head, [&](Position pos) { return pos + 1 < end && random() % left != 0; });
        ++left;
      }
    }
    kept.back().back().pop_back();  // not the newest
    keep(model(), *sequence, kept);
    return sequence;
  }
};

TEST_F(CompactLlama, EachHeadEndsWhereItsNewestEntryStoodBeforeTheNextToken) {
  constexpr Position kEnd = 400;
  const auto sequence = ragged(kEnd);
  const Positions before = positions_of(model(), *sequence);
  std::size_t most = 0;
  for (const auto& layer : before) {
    for (const auto& head : layer) most = std::max(most, head.size());
  }
  ASSERT_TRUE(model().compact(*sequence));
  ASSERT_EQ(sequence->next_pos(), static_cast<Position>(most));
  const Positions after = positions_of(model(), *sequence);
  for (std::size_t layer = 0; layer < before.size(); ++layer) {
    for (std::size_t head = 0; head < before[layer].size(); ++head) {
      const auto& had = before[layer][head];
      const auto& has = after[layer][head];
      ASSERT_EQ(has.size(), had.size());
      EXPECT_EQ(sequence->next_pos() - has.back(), had.back() + 1 == kEnd ? 1 : 2);
      EXPECT_EQ(has.back() - has.front() + 1, static_cast<Position>(has.size()));
    }
  }
}

TEST_F(CompactLlama, TakenOutAndPutInItGivesTheSameBitsAndMovingTwiceIsMovingOnce) {
  const auto sequence = ragged(400);
  ASSERT_TRUE(model().compact(*sequence));
  const Bytes once = kv_bytes(model(), *sequence);
  ASSERT_TRUE(model().compact(*sequence));
  EXPECT_EQ(kv_bytes(model(), *sequence), once);

  const auto again = model().new_sequence();
  ASSERT_TRUE(model().kv_room(*again, sequence->next_pos(), true));
  for (const KvPiece& piece : all_kv(model(), *sequence)) ASSERT_TRUE(model().kv_in(*again, piece));
  ASSERT_TRUE(model().set_next_pos(*again, sequence->next_pos()));
  for (const TokenId token : {7, 8, 9})
    EXPECT_EQ(generate(model(), *sequence, token), generate(model(), *again, token));
}

TEST_F(CompactLlama, MemoryIsThatOfTheEntries) {
  auto sequence = model().new_sequence();
  read(model(), *sequence, some_tokens(400, model().info().vocab_size));
  const auto full = model().kv_bytes_used();
  const auto fork = model().fork(*sequence);
  Positions last = positions_of(model(), *fork);
  for (auto& layer : last) {
    for (auto& head : layer) head.erase(head.begin(), head.end() - 64);
  }
  keep(model(), *fork, last);
  ASSERT_TRUE(model().compact(*fork));
  sequence.reset();
  // One whole page, since each position has its entry.
  EXPECT_EQ(model().kv_bytes_used(), full / 2);
}

std::string refusal(const std::string& family, Position end, Position first_kept) {
  const Loaded loaded = load_described(kFamilies / family, Compute::kFast);
  Model& model = *loaded.model;
  const auto sequence = model.new_sequence();
  read(model, *sequence, some_tokens(static_cast<std::size_t>(end), model.info().vocab_size));
  if (first_kept > 0) {
    Positions kept = positions_of(model, *sequence);
    for (auto& layer : kept) {
      for (auto& head : layer) head.erase(head.begin(), head.begin() + first_kept);
      layer[0].erase(layer[0].begin() + 1, layer[0].begin() + 40);
    }
    keep(model, *sequence, kept);
  }
  const Bytes before = kv_bytes(model, *sequence);
  const Status done = model.compact(*sequence);
  if (done) return "moved";
  EXPECT_EQ(sequence->next_pos(), end);
  EXPECT_EQ(kv_bytes(model, *sequence), before);
  return done.error().message();
}

TEST(CompactRefused, WhereKeysCannotBeTurnedOrAWindowWouldSeeAgain) {
  EXPECT_THAT(refusal("gpt2", 100, 40), HasSubstr("learned its positions"));
  if (!on_gpu()) {  // which does not load it
    EXPECT_THAT(refusal("lfm2", 40, 0), HasSubstr("convolutions"));
  }
  // mistral's window is 48: of 100 positions it sees the last 47 and the next.
  EXPECT_THAT(refusal("mistral", 100, 40), HasSubstr("would see position 40 again"));
  EXPECT_EQ(refusal("mistral", 100, 53), "moved");
  EXPECT_THAT(refusal("gemma3", 100, 30), HasSubstr("again, which it had left behind"));
}

}  // namespace
}  // namespace kvfs::model::testing
