// Sequences whose layers and heads hold different positions: against transformers with exactly the
// dropped ones masked (goldens/make_pruned_goldens.py), and bit for bit however they are kept.
#include <algorithm>
#include <atomic>
#include <boost/json.hpp>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "tests/engine/model/model_fixture.h"

namespace kvfs::model::testing {
namespace {

namespace fs = std::filesystem;
using prune::Kept;
using prune::KeptEntries;

const fs::path kGoldens = goldens();

struct Pruning {
  std::size_t at = 0;                                    // tokens read before
  std::vector<std::vector<std::vector<Position>>> kept;  // [layer][head]
};
struct Observed {  // [layer][query head][entry], before the second pruning
  std::size_t window = 0;
  std::vector<prune::HeadScores> newest;
  std::vector<prune::HeadScores> summed;
};
struct Golden {
  std::vector<TokenId> ids;
  std::vector<Pruning> prunings;
  std::vector<Logits> logits;  // from the first pruning on
  Observed observed;
};

Golden golden_of(const std::string& family) {
  std::ifstream file(kGoldens / "pruned" / family / "golden.json");
  std::stringstream text;
  text << file.rdbuf();
  const boost::json::value json = boost::json::parse(text.str());
  Golden golden{.ids = boost::json::value_to<std::vector<TokenId>>(json.at("ids"))};
  for (const auto& pruning : json.at("prunings").as_array()) {
    golden.prunings.push_back(
        {pruning.at("at").to_number<std::size_t>(),
         boost::json::value_to<std::vector<std::vector<std::vector<Position>>>>(
             pruning.at("kept"))});
  }
  const auto& observed = json.at("observed");
  golden.observed = {observed.at("window").to_number<std::size_t>(),
                     boost::json::value_to<std::vector<prune::HeadScores>>(observed.at("newest")),
                     boost::json::value_to<std::vector<prune::HeadScores>>(observed.at("summed"))};
  golden.logits = boost::json::value_to<std::vector<Logits>>(json.at("logits"));
  return golden;
}

double error_of(const Logits& got, const Logits& wanted) {
  EXPECT_EQ(got.size(), wanted.size());
  double error = 0;
  double norm = 0;
  for (std::size_t i = 0; i < std::min(got.size(), wanted.size()); ++i) {
    error += std::pow(static_cast<double>(got[i]) - wanted[i], 2);
    norm += std::pow(static_cast<double>(wanted[i]), 2);
  }
  return std::sqrt(error / norm);
}

// What prune() is told so that these positions stay.
Kept entries_at(Model& model, const Sequence& sequence, const Pruning& pruning) {
  Kept kept;
  for (std::size_t layer = 0; layer < pruning.kept.size(); ++layer) {
    const auto there = model.positions(sequence, static_cast<std::uint16_t>(layer));
    EXPECT_TRUE(there);
    auto& heads = kept.emplace_back();
    for (std::size_t head = 0; head < pruning.kept[layer].size(); ++head) {
      const std::vector<Position>& all = there->at(head);
      KeptEntries& entries = heads.emplace_back();
      for (const Position pos : pruning.kept[layer][head]) {
        const auto at = std::ranges::lower_bound(all, pos);
        EXPECT_TRUE(at != all.end() && *at == pos) << pos;
        entries.push_back(static_cast<std::int32_t>(at - all.begin()));
      }
    }
  }
  return kept;
}
// Every entry but those that drop(layer, head, position) names.
template <class Drop>
Kept all_but(Model& model, const Sequence& sequence, Drop drop) {
  Kept kept;
  for (std::size_t layer = 0; layer < model.info().layers.size(); ++layer) {
    auto& heads = kept.emplace_back();
    const auto there = model.positions(sequence, static_cast<std::uint16_t>(layer));
    for (std::size_t head = 0; head < there->size(); ++head) {
      KeptEntries& entries = heads.emplace_back();
      for (std::size_t i = 0; i < there->at(head).size(); ++i) {
        if (!drop(layer, head, there->at(head)[i])) entries.push_back(static_cast<int>(i));
      }
    }
  }
  return kept;
}
void prune(Model& model, Sequence& sequence, const Kept& kept) {
  const Status done = model.prune(sequence, kept);
  ASSERT_TRUE(done) << done.error().message();
}
// A new sequence with all that this one holds, put in backwards by three threads where that may be.
std::unique_ptr<Sequence> restored(Model& from, const Sequence& sequence, Model& to) {
  auto made = to.new_sequence();
  const std::vector<KvPiece> pieces = all_kv(from, sequence);
  const auto room = to.kv_room(*made, sequence.next_pos(), true);
  EXPECT_TRUE(room);
  if (room && !*room) {
    for (const KvPiece& piece : pieces) EXPECT_TRUE(to.kv_in(*made, piece));
    EXPECT_TRUE(to.set_next_pos(*made, sequence.next_pos()));
    return made;
  }
  std::atomic<std::size_t> next = pieces.size();
  std::atomic<int> failed = 0;
  std::vector<std::jthread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      for (std::size_t left; (left = next--) > 0 && left <= pieces.size();)
        failed += to.kv_in(*made, pieces[left - 1]) ? 0 : 1;
    });
  }
  threads.clear();
  EXPECT_EQ(failed, 0);
  const Status set = to.set_next_pos(*made, sequence.next_pos());
  EXPECT_TRUE(set) << set.error().message();
  return made;
}

class Pruned : public ::testing::TestWithParam<std::string> {
 protected:
  Loaded loaded(Compute compute, int threads = 2) {
    return load_described(kGoldens / "pruned" / GetParam(), compute, threads);
  }
  const Golden golden_ = golden_of(GetParam());
  std::span<const TokenId> ids(std::size_t begin, std::size_t end) const {
    return std::span(golden_.ids).subspan(begin, end - begin);
  }
  std::unique_ptr<Sequence> pruned_once(Model& model) {
    auto sequence = model.new_sequence();
    read(model, *sequence, ids(0, golden_.prunings[0].at));
    prune(model, *sequence, entries_at(model, *sequence, golden_.prunings[0]));
    return sequence;
  }
  const Logits& wanted(std::size_t at) const { return golden_.logits[at - golden_.prunings[0].at]; }
};
INSTANTIATE_TEST_SUITE_P(Families, Pruned, ::testing::Values("llama", "qwen3", "mistral"),
                         [](const auto& of) { return of.param; });

TEST_P(Pruned, LogitsAreThoseOfTransformersWithTheDroppedPositionsMasked) {
  const Loaded reference = loaded(Compute::kReference);
  ASSERT_TRUE(reference.model);
  Model& model = *reference.model;
  const std::size_t first = golden_.prunings[0].at;
  const std::size_t second = golden_.prunings[1].at;
  const std::size_t end = golden_.ids.size();

  const auto steps = pruned_once(model);
  EXPECT_EQ(steps->next_pos(), static_cast<Position>(first));
  for (std::size_t i = first; i < end; ++i) {
    if (i == second) prune(model, *steps, entries_at(model, *steps, golden_.prunings[1]));
    EXPECT_LT(error_of(generate(model, *steps, golden_.ids[i]), wanted(i)), 1e-3) << "step " << i;
  }

  const auto runs = pruned_once(model);  // many rows at once, over the page's border
  EXPECT_LT(error_of(read(model, *runs, ids(first, second)), wanted(second - 1)), 1e-3);
  prune(model, *runs, entries_at(model, *runs, golden_.prunings[1]));
  EXPECT_LT(error_of(read(model, *runs, ids(second, end)), wanted(end - 1)), 1e-3);

  for (std::uint16_t layer = 0; layer < 2; ++layer) {
    const auto there = model.positions(*runs, layer);
    ASSERT_TRUE(there);
    for (std::size_t head = 0; head < 2; ++head) {
      std::vector<Position> kept = golden_.prunings[1].kept[layer][head];
      for (std::size_t i = second; i < end; ++i) kept.push_back(static_cast<Position>(i));
      EXPECT_EQ(there->at(head), kept);
    }
  }
}

TEST_P(Pruned, TakenOutAndPutInItGivesTheSameBits) {
  for (const Compute compute : {Compute::kFast, Compute::kReference}) {
    const Loaded one = loaded(compute);
    const Loaded other = loaded(compute, 3);
    ASSERT_TRUE(one.model && other.model);
    const auto sequence = pruned_once(*one.model);
    read(*one.model, *sequence, ids(500, 520));  // the last page holds gaps and goes on
    const auto copy = restored(*one.model, *sequence, *other.model);
    EXPECT_EQ(*other.model->positions(*copy, 1), *one.model->positions(*sequence, 1));
    EXPECT_EQ(kv_bytes(*other.model, *copy), kv_bytes(*one.model, *sequence));
    for (std::size_t i = 520; i < 530; ++i) {
      EXPECT_EQ(generate(*other.model, *copy, golden_.ids[i]),
                generate(*one.model, *sequence, golden_.ids[i]));
    }
    EXPECT_EQ(read(*other.model, *copy, ids(530, 554)), read(*one.model, *sequence, ids(530, 554)));
    EXPECT_EQ(kv_bytes(*other.model, *copy), kv_bytes(*one.model, *sequence));
  }
}

TEST_P(Pruned, PiecesWithGapsNeedNoRoomMadeBefore) {
  const Loaded fast = loaded(Compute::kFast);
  ASSERT_TRUE(fast.model);
  Model& model = *fast.model;
  const auto sequence = pruned_once(model);
  std::vector<KvPiece> pieces = all_kv(model, *sequence);
  std::ranges::stable_sort(pieces, {}, &KvPiece::layer);
  const auto copy = model.new_sequence();
  for (const KvPiece& piece : pieces) ASSERT_TRUE(model.kv_in(*copy, piece));
  ASSERT_TRUE(model.set_next_pos(*copy, 500));
  EXPECT_EQ(read(model, *copy, ids(500, 554)), read(model, *sequence, ids(500, 554)));
}

TEST_P(Pruned, TheNumberOfThreadsAndTheCutOfAPromptDoNotChangeABit) {
  for (const Compute compute : {Compute::kFast, Compute::kReference}) {
    Logits expected;
    for (const int threads : {1, 3}) {
      const Loaded of = loaded(compute, threads);
      ASSERT_TRUE(of.model);
      const auto whole = pruned_once(*of.model);
      const Logits logits = read(*of.model, *whole, ids(500, 554));
      if (threads == 1) expected = logits;
      EXPECT_EQ(logits, expected);
      const auto parts = pruned_once(*of.model);
      read(*of.model, *parts, ids(500, 503));
      read(*of.model, *parts, ids(503, 540));
      EXPECT_EQ(read(*of.model, *parts, ids(540, 554)), expected);
    }
  }
}

TEST_P(Pruned, ForksLeaveEachOtherAlone) {
  const Loaded fast = loaded(Compute::kFast);
  ASSERT_TRUE(fast.model);
  Model& model = *fast.model;
  const auto full = model.new_sequence();
  read(model, *full, ids(0, 500));
  const Bytes before = kv_bytes(model, *full);
  const auto fork = model.fork(*full);
  prune(model, *fork, entries_at(model, *fork, golden_.prunings[0]));
  EXPECT_EQ(kv_bytes(model, *full), before);
  const auto alone = pruned_once(model);
  const Bytes pruned = kv_bytes(model, *alone);
  EXPECT_EQ(kv_bytes(model, *fork), pruned);

  const auto branch = model.fork(*fork);
  const Logits expected = read(model, *alone, ids(500, 520));
  EXPECT_EQ(read(model, *branch, ids(500, 520)), expected);
  EXPECT_EQ(kv_bytes(model, *fork), pruned);
  EXPECT_EQ(read(model, *fork, ids(500, 520)), expected);
  // Both go on in one step, as branches of one parent do, over shared sparse pages.
  std::vector<Logits> logits(2, room(model));
  DecodeItem items[] = {{fork.get(), 7, logits[0]}, {branch.get(), 9, logits[1]}};
  ASSERT_TRUE(model.decode(items));
  const auto other = model.fork(*alone);
  EXPECT_EQ(generate(model, *alone, 7), logits[0]);
  EXPECT_EQ(generate(model, *other, 9), logits[1]);
}

TEST_P(Pruned, TokensTakenBackAreReadAgainWithTheSameBits) {
  const Loaded fast = loaded(Compute::kFast);
  ASSERT_TRUE(fast.model);
  Model& model = *fast.model;
  const auto sequence = pruned_once(model);
  const Logits expected = read(model, *sequence, ids(500, 520));
  const Bytes kv = kv_bytes(model, *sequence);
  ASSERT_TRUE(model.truncate(*sequence, 505));
  generate(model, *sequence, 3);
  ASSERT_TRUE(model.truncate(*sequence, 505));
  EXPECT_EQ(read(model, *sequence, ids(505, 520)), expected);
  EXPECT_EQ(kv_bytes(model, *sequence), kv);
}

TEST_P(Pruned, KeepingEverythingChangesNothing) {
  const Loaded fast = loaded(Compute::kFast);
  ASSERT_TRUE(fast.model);
  Model& model = *fast.model;
  const auto full = model.new_sequence();
  read(model, *full, ids(0, 500));
  const auto kept = model.fork(*full);
  const std::uint64_t used = model.kv_bytes_used();
  prune(model, *kept, all_but(model, *kept, [](auto...) { return false; }));
  EXPECT_EQ(model.kv_bytes_used(), used);
  EXPECT_EQ(read(model, *kept, ids(500, 554)), read(model, *full, ids(500, 554)));
  EXPECT_EQ(kv_bytes(model, *kept), kv_bytes(model, *full));

  // Nor does what holds the entries: gaps in one layer make the page of the others sparse too.
  const auto whole = model.new_sequence();
  read(model, *whole, ids(0, 300));
  const auto copy = restored(model, *whole, model);
  EXPECT_EQ(read(model, *copy, ids(300, 400)), read(model, *whole, ids(300, 400)));
}

using Positions = std::vector<std::vector<std::vector<Position>>>;  // [layer][head]

// Bytes of what holds these entries of a history that ends there, heads 32 wide in bf16: on a CPU
// keys in tiles of 32; on a GPU a list of slots a page, and room for those to come.
std::uint64_t bytes_of(const Positions& kept, Position end) {
  constexpr std::uint64_t kRow = 32 * 2;  // a key, or a value
  const auto tiled = [](std::uint64_t count, std::uint64_t tile) {
    return (count + tile - 1) / tile * tile;
  };
  std::uint64_t bytes = 0;
  for (Position page = 0; on_gpu() && page < end; page += kBlockTokens) {
    std::uint64_t sides = 0;
    std::uint64_t entries = 0;
    for (const auto& layer : kept) {
      for (const auto& head : layer) {
        ++sides;
        entries += static_cast<std::uint64_t>(std::ranges::count_if(
            head, [&](Position pos) { return pos >= page && pos < page + kBlockTokens; }));
        entries += static_cast<std::uint64_t>(std::max(0, page + kBlockTokens - end));
      }
    }
    bytes += tiled(32 + 4 * (sides + 1) + entries, kRow) + 2 * entries * kRow;
  }
  if (on_gpu()) return bytes;
  for (const auto& layer : kept)
    for (const auto& head : layer) bytes += (tiled(head.size(), 32) + head.size()) * kRow;
  return bytes;
}

TEST_P(Pruned, MemoryIsWhatTheLengthsSay) {
  const Loaded fast = loaded(Compute::kFast);
  ASSERT_TRUE(fast.model);
  Model& model = *fast.model;
  ASSERT_EQ(model.kv_bytes_used(), 0U);
  const std::uint64_t expected = bytes_of(golden_.prunings[0].kept, 500);
  const auto sequence = pruned_once(model);
  EXPECT_EQ(model.kv_bytes_used(), expected);
  const auto copy = restored(model, *sequence, model);
  EXPECT_EQ(model.kv_bytes_used(), 2 * expected);
  const auto fork = model.fork(*copy);
  EXPECT_EQ(model.kv_bytes_used(), 2 * expected);
  prune(model, *copy, all_but(model, *copy, [](auto, auto, Position pos) { return pos < 499; }));
  EXPECT_EQ(model.kv_bytes_used(), 2 * expected + bytes_of(Positions(2, {{499}, {499}}), 500));
}

TEST_P(Pruned, WhatTheLastQueriesLookAtIsWhatTransformersSays) {
  const auto expect_near = [](const prune::Observation& got,
                              const std::vector<prune::HeadScores>& wanted) {
    ASSERT_EQ(got.size(), wanted.size());
    for (std::size_t layer = 0; layer < got.size(); ++layer) {
      ASSERT_EQ(got[layer].scores.size(), wanted[layer].size());
      for (std::size_t head = 0; head < wanted[layer].size(); ++head) {
        const std::vector<float>& scores = got[layer].scores[head];
        ASSERT_EQ(scores.size(), wanted[layer][head].size());
        for (std::size_t i = 0; i < scores.size(); ++i)
          EXPECT_NEAR(scores[i], wanted[layer][head][i], 5e-5) << layer << " " << head << " " << i;
      }
    }
  };
  const Loaded reference = loaded(Compute::kReference);
  ASSERT_TRUE(reference.model);
  Model& model = *reference.model;
  const auto sequence = pruned_once(model);
  read(model, *sequence, ids(500, 530));
  const Bytes before = kv_bytes(model, *sequence);
  const std::uint64_t used = model.kv_bytes_used();
  const auto newest = model.observe(*sequence, prune::Needs::kNewestQuery, ids(529, 530));
  ASSERT_TRUE(newest) << newest.error().message();
  expect_near(*newest, golden_.observed.newest);
  const auto summed = model.observe(*sequence, prune::Needs::kWindowQueries,
                                    ids(530 - golden_.observed.window, 530));
  ASSERT_TRUE(summed) << summed.error().message();
  expect_near(*summed, golden_.observed.summed);
  EXPECT_EQ(kv_bytes(model, *sequence), before);
  EXPECT_EQ(model.kv_bytes_used(), used);
  for (std::uint16_t layer = 0; layer < 2; ++layer)
    EXPECT_EQ((*newest)[layer].positions, *model.positions(*sequence, layer));

  EXPECT_EQ(model.observe(*sequence, prune::Needs::kNewestQuery, {}).error().code,
            ErrorCode::kInvalid);
  EXPECT_EQ(model.observe(*sequence, prune::Needs::kAllQueries, ids(0, 500)).error().code,
            ErrorCode::kInvalid);

  // Out of the step that generates the newest token, and without changing its bits.
  const auto fork = model.fork(*sequence);
  ASSERT_TRUE(model.truncate(*fork, 529));
  const auto unseen = model.fork(*fork);
  prune::Observation seen;
  Logits logits = room(model);
  DecodeItem item{fork.get(), golden_.ids[529], logits, &seen};
  ASSERT_TRUE(model.decode({&item, 1}));
  expect_near(seen, golden_.observed.newest);
  EXPECT_EQ(generate(model, *unseen, golden_.ids[529]), logits);
  EXPECT_EQ(kv_bytes(model, *unseen), kv_bytes(model, *fork));
  for (std::uint16_t layer = 0; layer < 2; ++layer)
    EXPECT_EQ(seen[layer].positions, *model.positions(*fork, layer));
}

TEST_P(Pruned, KeyNormsAreThoseOfTheKeysTakenOut) {
  const Loaded reference = loaded(Compute::kReference);
  ASSERT_TRUE(reference.model);
  Model& model = *reference.model;
  const auto sequence = pruned_once(model);
  const auto observed = model.observe(*sequence, prune::Needs::kKeyNorms, {});
  ASSERT_TRUE(observed) << observed.error().message();
  std::vector<prune::HeadScores> wanted(2, prune::HeadScores(2));
  for (const KvPiece& piece : all_kv(model, *sequence)) {
    const auto* key = reinterpret_cast<const float*>(piece.key.data());
    for (std::size_t head = 0; head < piece.head_count; ++head) {
      for (std::size_t i = 0; i < piece.positions.size(); ++i, key += 32) {
        double sum = 0;
        for (int d = 0; d < 32; ++d) sum += static_cast<double>(key[d]) * key[d];
        wanted[piece.layer][piece.head_begin + head].push_back(static_cast<float>(std::sqrt(sum)));
      }
    }
  }
  for (std::size_t layer = 0; layer < 2; ++layer)
    EXPECT_EQ((*observed)[layer].scores, wanted[layer]);
}

TEST_P(Pruned, AWrongChoiceIsRefusedAndChangesNothing) {
  const Loaded fast = loaded(Compute::kFast);
  ASSERT_TRUE(fast.model);
  Model& model = *fast.model;
  const auto sequence = model.new_sequence();
  read(model, *sequence, ids(0, 40));
  const Bytes before = kv_bytes(model, *sequence);
  const auto refused = [&](const Kept& kept) {
    const Status done = model.prune(*sequence, kept);
    EXPECT_FALSE(done);
    EXPECT_EQ(kv_bytes(model, *sequence), before);
    return done ? ErrorCode::kInternal : done.error().code;
  };
  EXPECT_EQ(refused({}), ErrorCode::kInvalid);
  EXPECT_EQ(refused({{{0}, {0}}, {{0}}}), ErrorCode::kInvalid);
  EXPECT_EQ(refused({{{0}, {0}}, {{0}, {}}}), ErrorCode::kInvalid);
  EXPECT_EQ(refused({{{0}, {0}}, {{0}, {40}}}), ErrorCode::kInvalid);
  EXPECT_EQ(refused({{{0}, {5, 3}}, {{0}, {0}}}), ErrorCode::kInvalid);
}

TEST_P(Pruned, WhatIsMissingIsNoticed) {
  const Loaded fast = loaded(Compute::kFast);
  ASSERT_TRUE(fast.model);
  Model& model = *fast.model;
  const auto sequence = pruned_once(model);
  const auto copy = model.new_sequence();
  ASSERT_TRUE(model.kv_room(*copy, 500));
  for (const KvPiece& piece : all_kv(model, *sequence)) {
    const Status put = model.kv_in(*copy, piece);
    ASSERT_FALSE(put) << "room was made for whole blocks";
    EXPECT_EQ(put.error().code, ErrorCode::kInvalid);
  }
  const auto gaps = model.new_sequence();
  ASSERT_TRUE(model.kv_room(*gaps, 500, true));
  for (const KvPiece& piece : all_kv(model, *sequence)) {
    if (piece.layer == 0 || piece.head_begin == 0) {
      ASSERT_TRUE(model.kv_in(*gaps, piece));
    }
  }
  EXPECT_EQ(model.set_next_pos(*gaps, 500).error().code, ErrorCode::kInvalid);
}

TEST(PrunedHybrid, IsRefusedInASentence) {
  const Loaded hybrid = load_described(kGoldens / "families" / "lfm2", Compute::kFast);
  ASSERT_TRUE(hybrid.model);
  const auto sequence = hybrid.model->new_sequence();
  read(*hybrid.model, *sequence, some_tokens(20, 96));
  const Status refused = hybrid.model->prune(*sequence, Kept(5, {{0}}));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kUnsupported);
  EXPECT_FALSE(refused.error().way_out.empty());
  const auto looked = hybrid.model->look_again(*sequence, {});
  ASSERT_FALSE(looked);
  EXPECT_EQ(looked.error().code, ErrorCode::kUnsupported);
  const auto gaps = hybrid.model->kv_room(*sequence, 300, true);
  ASSERT_FALSE(gaps);
  EXPECT_EQ(gaps.error().code, ErrorCode::kUnsupported);
  EXPECT_FALSE(hybrid.model->positions(*sequence, 0)) << "it has no entries";
  EXPECT_TRUE(hybrid.model->positions(*sequence, 1));
}

}  // namespace
}  // namespace kvfs::model::testing
