// Short convolutions beside attention, on the tiny LFM2: their state at block ends and at the end
// of the text, wherever the text was cut, restored, forked or taken back.
#include <unistd.h>

#include <boost/json.hpp>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "engine/model/dequantize.h"
#include "engine/model/families/family.h"
#include "tests/engine/model/model_fixture.h"

namespace kvfs::model::testing {
namespace {

namespace fs = std::filesystem;

const fs::path kFolder = goldens() / "families" / "lfm2";
constexpr std::size_t kConvolves = 0;  // the layer
constexpr std::int32_t kVocab = 96;

class Convolution : public ::testing::TestWithParam<Compute> {
 protected:
  void SetUp() override {
    loaded_ = load_described(kFolder, GetParam());
    ASSERT_TRUE(loaded_.model);
  }
  Model& model() { return *loaded_.model; }

  // A new sequence that has been given all that this one keeps.
  std::unique_ptr<Sequence> restored(const Sequence& sequence) {
    auto made = model().new_sequence();
    std::vector<KvPiece> pieces = all_kv(model(), sequence);
    std::ranges::stable_sort(pieces, {}, &KvPiece::layer);  // as the scheduler gives them
    for (const KvPiece& piece : pieces) {
      const Status put = model().kv_in(*made, piece);
      EXPECT_TRUE(put) << put.error().message();
    }
    const Status set = model().set_next_pos(*made, sequence.next_pos());
    EXPECT_TRUE(set) << set.error().message();
    return made;
  }

  std::vector<Position> kept_in(const Sequence& sequence, std::int32_t block) {
    const auto pieces = model().kv_out(sequence, kConvolves, block);
    EXPECT_TRUE(pieces) << pieces.error().message();
    return pieces ? pieces->at(0).positions : std::vector<Position>{};
  }

  const std::vector<TokenId> ids_ = some_tokens(500, kVocab);
  std::span<const TokenId> first(std::size_t n) const { return std::span(ids_).first(n); }
  std::span<const TokenId> from(std::size_t n) const { return std::span(ids_).subspan(n); }
  Loaded loaded_;
};
INSTANTIATE_TEST_SUITE_P(Modes, Convolution, ::testing::Values(Compute::kFast, Compute::kReference),
                         [](const auto& mode) {
                           return mode.param == Compute::kFast ? "Fast" : "Reference";
                         });

TEST_P(Convolution, ALayerKeepsItsInputsAtTheEndsOfBlocksAndOfTheText) {
  const LayerShape shape = model().info().layers[kConvolves];
  EXPECT_EQ(shape, (LayerShape{1, 32, 0, LayerKind::kConvolution, 3}));
  EXPECT_EQ(model().info().layers[1], (LayerShape{1, 32, 32}));
  const auto sequence = model().new_sequence();
  read(model(), *sequence, first(2));
  EXPECT_EQ(kept_in(*sequence, 0), (std::vector<Position>{0, 1}));
  read(model(), *sequence, first(300).subspan(2));
  EXPECT_EQ(kept_in(*sequence, 0), (std::vector<Position>{253, 254, 255}));
  EXPECT_EQ(kept_in(*sequence, 1), (std::vector<Position>{297, 298, 299}));
  const auto piece = model().kv_out(*sequence, kConvolves, 1)->at(0);
  EXPECT_EQ(piece.kind, LayerKind::kConvolution);
  EXPECT_EQ(piece.key.size(), 3 * 32 * size_of(model().info().kv_dtype));
  EXPECT_TRUE(piece.value.empty());
}

TEST_P(Convolution, WhatALayerKeptLastIsTransformersState) {
  std::ifstream file(kFolder / "golden.json");
  std::stringstream text;
  text << file.rdbuf();
  const auto golden = boost::json::parse(text.str());
  std::vector<TokenId> ids;
  for (const auto& id : golden.at("ids").as_array()) ids.push_back(id.to_number<TokenId>());
  const auto sequence = model().new_sequence();
  read(model(), *sequence, ids);
  const auto piece = model().kv_out(*sequence, kConvolves, 1)->at(0);
  const bool exact = GetParam() == Compute::kReference;
  std::vector<float> inputs(3 * 32);
  dequantize_row(exact ? container::GgmlType::kF32 : container::GgmlType::kBF16, piece.key, inputs);
  const auto& state = golden.at("conv_state").as_array();
  ASSERT_EQ(state.size(), 32U);
  for (std::size_t channel = 0; channel < 32; ++channel) {
    for (std::size_t back = 0; back < 3; ++back) {
      const auto wanted = state[channel].at(back).to_number<float>();
      EXPECT_NEAR(inputs[back * 32 + channel], wanted,
                  exact ? 1e-5 : 0.02 * std::max(1.0F, std::abs(wanted)));
    }
  }
}

TEST_P(Convolution, WhatLeavesOnItsWayIsWhatTheSequenceHeldThen) {
  const auto sequence = model().new_sequence();
  read(model(), *sequence, first(300));
  const std::vector<KvPiece> wanted = all_kv(model(), *sequence);
  std::vector<std::unique_ptr<KvOut>> leaving;
  for (const std::int32_t block : {0, 1}) {
    auto one = model().kv_on_its_way(*sequence, block);
    ASSERT_TRUE(one) << one.error().message();
    leaving.push_back(*std::move(one));
  }
  generate(model(), *sequence, 5);  // takes the place of the last block's oldest inputs
  auto expected = wanted.begin();
  for (const auto& each : leaving) {
    const auto pieces = each->take();
    ASSERT_TRUE(pieces) << pieces.error().message();
    for (const KvPiece& piece : *pieces) {
      ASSERT_NE(expected, wanted.end());
      EXPECT_EQ(piece.layer, expected->layer);
      EXPECT_EQ(piece.kind, expected->kind);
      EXPECT_EQ(piece.head_count, expected->head_count);
      EXPECT_EQ(piece.positions, expected->positions);
      EXPECT_EQ(piece.key, expected->key) << "layer " << piece.layer;
      EXPECT_EQ(piece.value, expected->value) << "layer " << piece.layer;
      ++expected;
    }
  }
  EXPECT_EQ(expected, wanted.end());
  ASSERT_TRUE(model().truncate(*sequence, 300));
  EXPECT_EQ(model().kv_on_its_way(*sequence, 1).error().code, ErrorCode::kUnsupported);
}

TEST_P(Convolution, CutsAndRestoresAnywhereGiveTheSameBits) {
  const auto whole = model().new_sequence();
  const Logits expected = read(model(), *whole, ids_);
  const Bytes kv = kv_bytes(model(), *whole);
  for (const std::size_t cut : {1U, 2U, 3U, 4U, 100U, 254U, 255U, 256U, 257U, 258U, 259U, 499U}) {
    const auto before = model().new_sequence();
    read(model(), *before, first(cut));
    const auto after = restored(*before);
    EXPECT_EQ(kv_bytes(model(), *after), kv_bytes(model(), *before)) << cut;
    const auto forked = model().fork(*before);
    EXPECT_EQ(read(model(), *after, from(cut)), expected) << cut;
    EXPECT_EQ(kv_bytes(model(), *after), kv) << cut;
    EXPECT_EQ(read(model(), *forked, from(cut)), expected) << cut;
  }
}

// The same bits where both paths are one, else the same numbers.
TEST_P(Convolution, TokenByTokenAcrossABlocksEndIsTheSamePath) {
  const auto whole = model().new_sequence();
  const Logits expected = read(model(), *whole, first(262));
  const auto steps = model().new_sequence();
  read(model(), *steps, first(250));
  Logits logits;
  for (std::size_t i = 250; i < 262; ++i) {
    logits = generate(model(), *steps, ids_[i]);
    if (i == 253 || i == 255 || i == 256) {
      const auto after = restored(*steps);
      EXPECT_EQ(generate(model(), *after, 7), generate(model(), *model().fork(*steps), 7)) << i;
    }
  }
  if (model().info().one_path) {
    EXPECT_EQ(logits, expected);
    EXPECT_EQ(kv_bytes(model(), *steps), kv_bytes(model(), *whole));
  }
  ASSERT_EQ(logits.size(), expected.size());
  // On a GPU the fast mode's paths round to bf16 what they add in different orders.
  const bool coarse = GetParam() == Compute::kFast && !model().info().one_path;
  for (std::size_t i = 0; i < logits.size(); ++i)
    EXPECT_NEAR(logits[i], expected[i], coarse ? 0.05 : 1e-3) << i;
}

TEST_P(Convolution, ForksInOneBatchAreAsEachAlone) {
  const auto parent = model().new_sequence();
  read(model(), *parent, first(257));
  const auto left = model().fork(*parent);
  const auto right = model().fork(*parent);
  std::vector<Logits> logits(2, room(model()));
  for (TokenId step = 0; step < 5; ++step) {
    DecodeItem items[] = {{left.get(), 3, logits[0]}, {right.get(), 4 + step, logits[1]}};
    ASSERT_TRUE(model().decode(items));
  }
  const auto alone = restored(*parent);
  Logits last;
  for (TokenId step = 0; step < 5; ++step) last = generate(model(), *alone, 4 + step);
  EXPECT_EQ(last, logits[1]);
  EXPECT_EQ(kv_bytes(model(), *alone), kv_bytes(model(), *right));
  EXPECT_NE(kv_bytes(model(), *left), kv_bytes(model(), *right));
}

TEST_P(Convolution, TheLastTokenCanBeTakenBackAndComputedAgain) {
  for (const std::size_t length : {1U, 3U, 4U, 100U, 256U, 257U, 258U, 300U}) {
    const auto sequence = model().new_sequence();
    const Logits expected = read(model(), *sequence, first(length));
    const Bytes kv = kv_bytes(model(), *sequence);
    const auto again = restored(*sequence);
    const auto last = static_cast<Position>(length) - 1;
    for (Sequence* each : {sequence.get(), again.get()}) {
      ASSERT_TRUE(model().truncate(*each, last)) << length;
      EXPECT_EQ(read(model(), *each, from(length - 1).first(1)), expected) << length;
      EXPECT_EQ(kv_bytes(model(), *each), kv) << length;
    }
  }
}

TEST_P(Convolution, FurtherBackOnlyABlocksBeginningIsLeft) {
  const auto sequence = model().new_sequence();
  read(model(), *sequence, first(300));
  const Status gone = model().truncate(*sequence, 298);
  ASSERT_FALSE(gone);
  EXPECT_EQ(gone.error().code, ErrorCode::kUnsupported);
  EXPECT_FALSE(gone.error().way_out.empty());
  EXPECT_EQ(sequence->next_pos(), 300);
  ASSERT_TRUE(model().truncate(*sequence, 299));
  // Its place was taken by the token that was taken back.
  EXPECT_EQ(model().kv_out(*sequence, kConvolves, 1).error().code, ErrorCode::kUnsupported);
  EXPECT_TRUE(model().kv_out(*sequence, 1, 1));
  ASSERT_TRUE(model().truncate(*sequence, 256));
  const auto fresh = model().new_sequence();
  read(model(), *fresh, first(256));
  EXPECT_EQ(read(model(), *sequence, from(256).first(44)),
            read(model(), *fresh, from(256).first(44)));
}

TEST_P(Convolution, KvInRefusesWhatIsNotItsState) {
  const auto sequence = model().new_sequence();
  read(model(), *sequence, first(40));
  const std::vector<KvPiece> pieces = all_kv(model(), *sequence);
  const auto target = model().new_sequence();
  const auto code = [&](const KvPiece& piece) {
    const Status put = model().kv_in(*target, piece);
    return put ? ErrorCode::kInternal : put.error().code;
  };
  KvPiece bent = pieces[kConvolves];
  bent.kind = LayerKind::kFull;
  EXPECT_EQ(code(bent), ErrorCode::kUnsupported);
  bent = pieces[kConvolves];
  bent.positions = {36, 38, 39};
  EXPECT_EQ(code(bent), ErrorCode::kUnsupported);
  bent.positions = {38, 39};
  bent.key.resize(bent.key.size() / 3 * 2);
  EXPECT_EQ(code(bent), ErrorCode::kUnsupported);  // one is missing
  bent = pieces[kConvolves];
  bent.key.pop_back();
  EXPECT_EQ(code(bent), ErrorCode::kInvalid);
  bent = pieces[kConvolves];
  bent.value = bent.key;
  EXPECT_EQ(code(bent), ErrorCode::kInvalid);
  bent = pieces[kConvolves];
  bent.layer = 1;
  EXPECT_EQ(code(bent), ErrorCode::kUnsupported);

  for (const KvPiece& piece : pieces) {
    if (piece.layer != kConvolves) {
      ASSERT_TRUE(model().kv_in(*target, piece));
    }
  }
  EXPECT_EQ(model().set_next_pos(*target, 40).error().code, ErrorCode::kInvalid);  // it is missing
  ASSERT_TRUE(model().kv_in(*target, pieces[kConvolves]));
  EXPECT_EQ(model().set_next_pos(*target, 30).error().code, ErrorCode::kInvalid);  // not kept
  ASSERT_TRUE(model().set_next_pos(*target, 40));
}

TEST_P(Convolution, AFullBudgetLeavesTheSequenceAsItWas) {
  const auto page = [&] {
    const auto one = model().new_sequence();
    read(model(), *one, first(1));
    return model().kv_bytes_used();
  }();
  const Loaded tight = load_described(kFolder, GetParam(), 2, page);
  ASSERT_TRUE(tight.model);
  const auto sequence = tight.model->new_sequence();
  read(*tight.model, *sequence, first(100));
  const auto same = model().new_sequence();
  read(model(), *same, first(100));
  EXPECT_EQ(tight.model->prefill(*sequence, from(100), {}).error().code, ErrorCode::kTooLarge);
  EXPECT_EQ(kv_bytes(*tight.model, *sequence), kv_bytes(model(), *same));
  ASSERT_TRUE(tight.model->truncate(*sequence, 99));
  EXPECT_EQ(read(*tight.model, *sequence, from(99).first(30)),
            read(model(), *model().fork(*same), from(100).first(29)));
}

// ---- configurations that are wrong

class WrongConfig : public ::testing::Test {
 protected:
  WrongConfig() {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    fs::copy_file(kFolder / "model.safetensors", folder_ / "model.safetensors");
    std::ifstream file(kFolder / "config.json");
    std::stringstream text;
    text << file.rdbuf();
    config_ = boost::json::parse(text.str()).as_object();
  }
  ~WrongConfig() override { fs::remove_all(folder_); }
  Result<std::unique_ptr<ModelCard>> card() {
    std::ofstream(folder_ / "config.json") << boost::json::serialize(config_);
    return describe_model(folder_, Compute::kFast, {.kind = DeviceChoice::Kind::kCpu}, {});
  }
  void expect_refused(ErrorCode code, const std::string& words) {
    const auto got = card();
    ASSERT_FALSE(got) << words;
    EXPECT_EQ(got.error().code, code) << got.error().message();
    EXPECT_NE(got.error().message().find(words), std::string::npos) << got.error().message();
  }

  fs::path folder_ = fs::path(::testing::TempDir()) / ("wrong-lfm2-" + std::to_string(::getpid()));
  boost::json::object config_;
};

TEST_F(WrongConfig, LayersOfUnknownKindsOrNumbersAreNamed) {
  config_["layer_types"].as_array().pop_back();
  expect_refused(ErrorCode::kInvalid, "layer_types has 4 layers, wanted 5");
  config_["layer_types"].as_array().emplace_back("mamba");
  expect_refused(ErrorCode::kUnsupported, "'mamba'");
  config_["layer_types"] = boost::json::array(5, "conv");
  expect_refused(ErrorCode::kUnsupported, "none of its layers attends");
}

TEST_F(WrongConfig, TapsOutOfRangeOrOfAnotherShapeAreNamed) {
  config_["conv_L_cache"] = 0;
  expect_refused(ErrorCode::kInvalid, "conv_L_cache");
  config_["conv_L_cache"] = 1000;
  expect_refused(ErrorCode::kInvalid, "conv_L_cache");
  config_["conv_L_cache"] = 4;
  expect_refused(ErrorCode::kCorrupt, "model.layers.0.conv.conv.weight is [3, 1, 32]");
  config_["conv_L_cache"] = 3;
  config_["conv_bias"] = true;
  expect_refused(ErrorCode::kCorrupt, "model.layers.0.conv.conv.bias is missing");
}

TEST_F(WrongConfig, OlderFieldsSayTheSame) {
  config_.erase("layer_types");
  config_["full_attn_idxs"] = boost::json::array{1, 4};
  config_.erase("intermediate_size");
  config_["block_ff_dim"] = 48;
  const auto older = card();
  ASSERT_TRUE(older) << older.error().message();
  EXPECT_EQ((*older)->info.layers[0].kind, LayerKind::kConvolution);
  EXPECT_EQ((*older)->info.layers[4].kind, LayerKind::kFull);
}

TEST(ConvolutionCard, KernelsForPlainLlamasAreToldOfIt) {
  const auto files = Checkpoint::open(kFolder);
  ASSERT_TRUE(files) << files.error().message();
  const auto architecture = read_architecture(**files);
  ASSERT_TRUE(architecture) << architecture.error().message();
  EXPECT_EQ(unlike_llama(*architecture), "some layers are short convolutions");
}

TEST(ConvolutionCard, AGgufsConfigIsWhatTransformersWants) {
  const auto card = describe_model(kFolder / "model.gguf", Compute::kFast,
                                   {.kind = DeviceChoice::Kind::kCpu}, {});
  ASSERT_TRUE(card) << card.error().message();
  const auto config = boost::json::parse((*card)->config_json).as_object();
  EXPECT_EQ(config.at("model_type"), "lfm2");
  EXPECT_EQ(config.at("conv_L_cache"), 3);
  EXPECT_EQ(config.at("num_key_value_heads"), 1);
  EXPECT_EQ(config.at("intermediate_size"), 32);
  EXPECT_EQ(config.at("block_auto_adjust_ff_dim"), false);
  EXPECT_EQ(config.at("layer_types"),
            (boost::json::array{"conv", "full_attention", "conv", "conv", "full_attention"}));
}

}  // namespace
}  // namespace kvfs::model::testing
