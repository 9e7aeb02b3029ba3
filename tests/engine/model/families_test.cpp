// Every family, from a Hugging Face folder and from a GGUF, against what transformers says of the
// same tiny model (goldens/make_family_goldens.py): 300 tokens, longer than any window or original
// context in them.
#include <boost/json.hpp>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "engine/model/dequantize.h"
#include "tests/engine/model/model_fixture.h"

namespace kvfs::model::testing {
namespace {

namespace fs = std::filesystem;

const fs::path kGoldens = goldens() / "families";

struct Golden {
  std::vector<TokenId> ids;
  std::size_t prompt = 0;
  std::vector<TokenId> greedy;
  std::map<std::size_t, Logits> logits;  // after the token at that position
};

Golden golden_of(const std::string& family) {
  std::ifstream file(kGoldens / family / "golden.json");
  std::stringstream text;
  text << file.rdbuf();
  const boost::json::value json = boost::json::parse(text.str());
  Golden golden;
  for (const auto& id : json.at("ids").as_array()) golden.ids.push_back(id.to_number<TokenId>());
  for (const auto& id : json.at("greedy").as_array())
    golden.greedy.push_back(id.to_number<TokenId>());
  golden.prompt = json.at("prompt").to_number<std::size_t>();
  for (const auto& [position, values] : json.at("logits").as_object()) {
    Logits& logits = golden.logits[std::stoul(position)];
    for (const auto& value : values.as_array()) logits.push_back(value.to_number<float>());
  }
  return golden;
}

std::vector<float> floats_of(const Bytes& bytes, DType type) {
  std::vector<float> out(bytes.size() / size_of(type));
  const auto kind = type == DType::kF32 ? container::GgmlType::kF32 : container::GgmlType::kBF16;
  dequantize_row(kind, bytes, out);
  return out;
}

// Relative to the length of what is expected.
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

std::vector<std::string> all_forms() {
  std::vector<std::string> forms;
  for (const auto& folder : fs::directory_iterator(kGoldens)) {
    forms.push_back(folder.path().filename().string());
    if (fs::exists(folder.path() / "model.gguf"))
      forms.push_back(folder.path().filename().string() + "/model.gguf");
  }
  std::ranges::sort(forms);
  return forms;
}

// The parameter: a folder of the goldens, or the GGUF in one.
class EveryFamily : public ::testing::TestWithParam<std::string> {
 protected:
  Loaded loaded(Compute compute, int threads = 2) {
    return load_described(kGoldens / GetParam(), compute, threads);
  }
  Golden golden() { return golden_of(GetParam().substr(0, GetParam().find('/'))); }
};
INSTANTIATE_TEST_SUITE_P(Forms, EveryFamily, ::testing::ValuesIn(all_forms()), [](const auto& of) {
  std::string name = of.param;
  std::ranges::replace_if(
      name, [](char c) { return std::isalnum(c) == 0; }, '_');
  return name;
});

TEST_P(EveryFamily, ReferenceModeGivesTransformersLogitsHoweverItIsRead) {
  const Loaded reference = loaded(Compute::kReference);
  ASSERT_TRUE(reference.model);
  Model& model = *reference.model;
  const Golden wanted = golden();
  ASSERT_EQ(wanted.ids.size(), 300U);
  const std::span ids(wanted.ids);
  const Logits& last = wanted.logits.at(299);

  const auto whole = model.new_sequence();
  EXPECT_LT(error_of(read(model, *whole, ids), last), 1e-4) << "in one prefill";

  const auto parts = model.new_sequence();
  std::size_t at = 0;
  for (const auto& [position, logits] : wanted.logits) {
    const auto part = ids.subspan(at, position + 1 - at);
    EXPECT_LT(error_of(read(model, *parts, part), logits), 1e-4) << "read up to " << position;
    at = position + 1;
  }

  const auto steps = model.new_sequence();
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const Logits logits = generate(model, *steps, ids[i]);
    const auto there = wanted.logits.find(i);
    if (there != wanted.logits.end()) {
      EXPECT_LT(error_of(logits, there->second), 1e-4) << "token by token, at " << i;
    }
  }
}

TEST_P(EveryFamily, GreedyWordsAreTransformersAcrossARestart) {
  const Golden wanted = golden();
  const std::span prompt = std::span(wanted.ids).first(wanted.prompt);
  const Loaded first = loaded(Compute::kReference);
  const Loaded second = loaded(Compute::kReference);
  ASSERT_TRUE(first.model && second.model);

  const auto before = first.model->new_sequence();
  std::vector<TokenId> tokens{best(read(*first.model, *before, prompt))};
  while (tokens.size() < 40) tokens.push_back(best(generate(*first.model, *before, tokens.back())));

  const auto after = second.model->new_sequence();
  for (const KvPiece& piece : all_kv(*first.model, *before))
    ASSERT_TRUE(second.model->kv_in(*after, piece));
  ASSERT_TRUE(second.model->set_next_pos(*after, before->next_pos()));
  while (tokens.size() < wanted.greedy.size())
    tokens.push_back(best(generate(*second.model, *after, tokens.back())));
  EXPECT_EQ(tokens, wanted.greedy);
}

// Reading and generating are one path on a CPU; on a GPU a prompt's cut changes nothing still.
TEST_P(EveryFamily, FastModeIsNearAndHasTheBitsOfItsPaths) {
  const Golden wanted = golden();
  const Loaded fast = loaded(Compute::kFast);
  ASSERT_TRUE(fast.model);
  Model& model = *fast.model;
  const std::span ids(wanted.ids);
  const auto whole = model.new_sequence();
  const Logits logits = read(model, *whole, ids);
  EXPECT_LT(error_of(logits, wanted.logits.at(299)), 0.05);  // bf16 KV

  const auto parts = model.new_sequence();
  read(model, *parts, ids.first(37));
  read(model, *parts, ids.subspan(37, 200));
  Logits by_steps;
  if (model.info().one_path) {
    for (std::size_t i = 237; i < ids.size(); ++i) by_steps = generate(model, *parts, ids[i]);
  } else {
    by_steps = read(model, *parts, ids.subspan(237));
  }
  EXPECT_EQ(by_steps, logits);
  EXPECT_EQ(kv_bytes(model, *parts), kv_bytes(model, *whole));
}

// What the layers keep differs by what bf16 and the layers before have lost.
TEST_P(EveryFamily, FastModeIsNearTheReferenceLayerByLayer) {
  const Loaded fast = loaded(Compute::kFast);
  const Loaded reference = loaded(Compute::kReference);
  ASSERT_TRUE(fast.model && reference.model);
  const Golden wanted = golden();
  const auto a = fast.model->new_sequence();
  const auto b = reference.model->new_sequence();
  read(*fast.model, *a, wanted.ids);
  read(*reference.model, *b, wanted.ids);
  const std::vector<KvPiece> got = all_kv(*fast.model, *a);
  const std::vector<KvPiece> exact = all_kv(*reference.model, *b);
  ASSERT_EQ(got.size(), exact.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i].positions, exact[i].positions);
    EXPECT_LT(error_of(floats_of(got[i].key, DType::kBF16), floats_of(exact[i].key, DType::kF32)),
              0.05)
        << "keys of layer " << got[i].layer;
    if (exact[i].value.empty()) continue;
    EXPECT_LT(
        error_of(floats_of(got[i].value, DType::kBF16), floats_of(exact[i].value, DType::kF32)),
        0.05)
        << "values of layer " << got[i].layer;
  }
}

TEST_P(EveryFamily, TheNumberOfThreadsDoesNotChangeABit) {
  const Golden wanted = golden();
  const std::span ids(wanted.ids);
  for (const Compute compute : {Compute::kFast, Compute::kReference}) {
    Logits logits;
    Bytes kv;
    for (const int threads : {1, 2, 3}) {
      const Loaded model = loaded(compute, threads);
      ASSERT_TRUE(model.model);
      const auto sequence = model.model->new_sequence();
      read(*model.model, *sequence, ids.first(290));
      Logits last;
      for (const TokenId id : ids.subspan(290)) last = generate(*model.model, *sequence, id);
      if (threads == 1) {
        logits = last;
        kv = kv_bytes(*model.model, *sequence);
      }
      EXPECT_EQ(last, logits) << threads << " threads";
      EXPECT_EQ(kv_bytes(*model.model, *sequence), kv) << threads << " threads";
    }
  }
}

// Norms and biases do not count, nor what is left in fp32 beside them.
TEST(Families, AModelIsOfFp16WhereItsMatricesAre) {
  for (const std::string& form : all_forms()) {
    const auto card =
        describe_model(kGoldens / form, Compute::kFast, {.kind = DeviceChoice::Kind::kCpu}, {});
    ASSERT_TRUE(card) << card.error().message();
    const bool fp16 = form.starts_with("mistral") || form.starts_with("phi3") ||
                      form.starts_with("gpt2") || form.starts_with("gpt_neox");
    EXPECT_EQ((*card)->info.fp16, fp16) << form;
    EXPECT_EQ((*card)->info.kv_dtype, DType::kBF16) << form;
  }
}

TEST(Families, EveryFamilyHasItsTinyModel) {
  for (const char* family :
       {"llama", "mistral", "mixtral", "smollm3", "qwen2", "qwen3", "qwen3_moe", "phi3", "gemma2",
        "gemma3", "gpt2", "gpt_neox", "olmo2", "lfm2"})
    EXPECT_TRUE(fs::exists(kGoldens / family / "golden.json")) << family;
}

}  // namespace
}  // namespace kvfs::model::testing
