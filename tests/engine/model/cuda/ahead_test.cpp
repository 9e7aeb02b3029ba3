// Steps that are launched ahead, on the device, give the tokens and the KV of decode() and
// sample(); KV leaves while they run.
#include <deque>
#include <thread>
#include <utility>

#include "tests/engine/model/cuda/loaded_model.h"

namespace kvfs::model::cuda {
namespace {

class CudaAhead : public CudaModelTest {
 protected:
  Model& model() { return CudaModelTest::model(Compute::kFast); }

  struct Text {
    SamplingParams params;
    std::vector<TokenId> history;  // read, and said
    std::size_t said = 0;
    std::unique_ptr<Sequence> sequence;
    int ahead = 0;
  };
  Text begin(int tokens, SamplingParams params) {
    Text out{.params = std::move(params), .history = {}, .sequence = model().new_sequence()};
    for (int i = 0; i < tokens; ++i) out.history.push_back(1000 + i * 37 % 9000);
    say(out, sample(read(model(), *out.sequence, out.history), {out.history, 0}, out.params,
                    out.sequence->next_pos()));
    return out;
  }
  static void say(Text& text, TokenId token) {
    text.history.push_back(token);
    ++text.said;
  }
  static AheadItem next(const Text& text) {
    return {.sequence = text.sequence.get(),
            .token = text.ahead > 0 ? kNewest : text.history.back(),
            .sampling = &text.params,
            .said = {text.history, text.said},
            .unheard = text.ahead};
  }
  void one_by_one(Text& text, int steps) {
    for (int i = 0; i < steps; ++i) {
      const auto logits = generate(model(), *text.sequence, text.history.back());
      say(text, sample(logits, {text.history, text.said}, text.params, text.sequence->next_pos()));
    }
  }
  // steps[i] of texts[i], launched together as long as they last, kMostAhead at a time.
  void ahead(std::vector<Text*> texts, std::vector<int> steps) {
    std::deque<std::vector<Text*>> under_way;
    const auto hear = [&] {
      const auto tokens = value_of(model().hear());
      const auto step = under_way.front();
      under_way.pop_front();
      ASSERT_EQ(tokens.size(), step.size());
      for (std::size_t i = 0; i < step.size(); ++i) {
        say(*step[i], tokens[i]);
        --step[i]->ahead;
      }
    };
    while (true) {
      std::vector<AheadItem> items;
      std::vector<Text*> these;
      for (std::size_t i = 0; i < texts.size(); ++i) {
        if (steps[i]-- <= 0) continue;
        items.push_back(next(*texts[i]));
        these.push_back(texts[i]);
      }
      if (items.empty()) break;
      must(model().launch(items));
      for (Text* text : these) ++text->ahead;
      under_way.push_back(these);
      if (std::cmp_equal(under_way.size(), model().most_ahead())) hear();
    }
    while (!under_way.empty()) hear();
  }
  std::vector<Bytes> kv(const Sequence& sequence) {
    std::vector<Bytes> out;
    for (std::uint16_t layer = 0; layer < model().info().layers.size(); ++layer) {
      for (int block = 0; block * kBlockTokens < sequence.next_pos(); ++block) {
        for (KvPiece& piece : value_of(model().kv_out(sequence, layer, block))) {
          out.push_back(std::move(piece.key));
          out.push_back(std::move(piece.value));
        }
      }
    }
    return out;
  }
};

const std::vector<SamplingParams> kSettings{
    {.temperature = 0},
    {.temperature = 0.9F, .top_p = 0.9F, .seed = 5},
    {.temperature = 1.1F, .top_k = 60, .min_p = 0.01F, .seed = 6},
    {.temperature = 0, .repeat_penalty = 1.2F, .presence_penalty = 0.3F, .frequency_penalty = 0.2F},
    {.temperature = 0.8F,
     .repeat_penalty = 1.1F,
     .logit_bias = {{284, 3.0F}, {28, -100.0F}},
     .seed = 7}};

TEST_F(CudaAhead, TokensAndKvAreThoseOfOneStepAtATime) {
  ASSERT_GT(model().most_ahead(), 1);
  for (const SamplingParams& params : kSettings) {
    ASSERT_TRUE(model().draws(params));
    Text expected = begin(230, params);
    one_by_one(expected, 60);  // into another page
    Text text = begin(230, params);
    ahead({&text}, {60});
    EXPECT_EQ(text.history, expected.history);
    EXPECT_EQ(kv(*text.sequence), kv(*expected.sequence));
  }
  EXPECT_FALSE(model().draws({.typical = 0.5F}));
}

TEST_F(CudaAhead, WhoJoinsAndLeavesChangesNothing) {
  std::vector<Text> texts, expected;
  std::vector<Text*> all;
  std::vector<int> steps;
  for (int i = 0; i < model().max_batch(); ++i) {
    const auto& params = kSettings[static_cast<std::size_t>(i) % kSettings.size()];
    steps.push_back(5 + 13 * i % 40);
    texts.push_back(begin(100 + 31 * i, params));
    expected.push_back(begin(100 + 31 * i, params));
    one_by_one(expected.back(), steps.back() + 4);
  }
  for (Text& text : texts) all.push_back(&text);
  ahead(all, steps);
  ahead(all, std::vector<int>(all.size(), 4));
  for (std::size_t i = 0; i < texts.size(); ++i) {
    EXPECT_EQ(texts[i].history, expected[i].history) << i;
    EXPECT_EQ(kv(*texts[i].sequence), kv(*expected[i].sequence)) << i;
  }
}

TEST_F(CudaAhead, WhatWasLaunchedInVainIsDroppedAndOthersGoOn) {
  Text expected = begin(250, kSettings[1]);
  one_by_one(expected, 20);
  Text text = begin(250, kSettings[1]);
  ahead({&text}, {5});
  for (int i = 0; i < model().most_ahead(); ++i) {
    const AheadItem item = next(text);
    must(model().launch({&item, 1}));
    ++text.ahead;
  }
  must(model().truncate(*text.sequence, text.sequence->next_pos() - text.ahead));
  {  // its pages are another's before the steps have run
    const auto other = model().new_sequence();
    must(model().prefill(*other, text.history, {}));
  }
  for (; text.ahead > 0; --text.ahead) value_of(model().hear());
  ahead({&text}, {15});
  EXPECT_EQ(text.history, expected.history);
  EXPECT_EQ(kv(*text.sequence), kv(*expected.sequence));
}

TEST_F(CudaAhead, BlocksLeaveWhileItGeneratesAndAreThoseThatStay) {
  Text text = begin(600, kSettings[0]);
  std::vector<std::unique_ptr<KvOut>> leaving;
  for (int block = 0; block < 3; ++block) {  // the last one grows meanwhile, and is not full
    leaving.push_back(value_of(model().kv_on_its_way(*text.sequence, block)));
  }
  const auto before = model().fork(*text.sequence);
  ahead({&text}, {40});
  for (int block = 0; block < 3; ++block) {
    std::vector<KvPiece> pieces;
    std::thread([&] {
      pieces = value_of(leaving[static_cast<std::size_t>(block)]->take());
    }).join();
    ASSERT_EQ(pieces.size(), model().info().layers.size());
    for (std::uint16_t layer = 0; layer < pieces.size(); ++layer) {
      const auto expected = value_of(model().kv_out(*before, layer, block));
      ASSERT_EQ(pieces[layer].positions, expected[0].positions);
      EXPECT_EQ(pieces[layer].layer, layer);
      EXPECT_EQ(pieces[layer].key, expected[0].key) << "block " << block << " layer " << layer;
      EXPECT_EQ(pieces[layer].value, expected[0].value) << "block " << block << " layer " << layer;
    }
  }
  EXPECT_FALSE(model().kv_on_its_way(*text.sequence, 9));
}

// A step of both has both kinds of attention.
TEST_F(CudaAhead, APrunedTextGoesAheadBesideAWholeOne) {
  const auto prune = [this](Text& text) {
    prune::Kept kept;
    for (std::uint16_t layer = 0; layer < model().info().layers.size(); ++layer) {
      auto& heads = kept.emplace_back();
      for (const auto& all : value_of(model().positions(*text.sequence, layer))) {
        auto& entries = heads.emplace_back();
        for (std::size_t i = 0; i < all.size(); ++i)
          if (i % 3 != 1) entries.push_back(static_cast<std::int32_t>(i));
      }
    }
    must(model().prune(*text.sequence, kept));
  };
  Text expected = begin(490, kSettings[1]);
  Text whole_expected = begin(300, kSettings[0]);
  prune(expected);
  one_by_one(expected, 40);  // into another page
  one_by_one(whole_expected, 50);
  Text text = begin(490, kSettings[1]);
  Text whole = begin(300, kSettings[0]);
  prune(text);
  ahead({&whole, &text}, {50, 40});
  EXPECT_EQ(text.history, expected.history);
  EXPECT_EQ(kv(*text.sequence), kv(*expected.sequence));
  EXPECT_EQ(whole.history, whole_expected.history);
  EXPECT_EQ(kv(*whole.sequence), kv(*whole_expected.sequence));

  std::size_t pieces = 0;
  for (const KvPiece& piece :
       value_of(value_of(model().kv_on_its_way(*text.sequence, 1))->take())) {
    pieces += piece.layer == 3 ? 1 : 0;
    if (piece.layer != 3) continue;
    EXPECT_EQ(piece.key, value_of(model().kv_out(*text.sequence, 3, 1)).front().key);
  }
  EXPECT_EQ(pieces, 1U);
}

}  // namespace
}  // namespace kvfs::model::cuda
