// Every family, from a Hugging Face folder and from a GGUF, against what transformers says of the
// same tiny model (goldens/make_family_goldens.py): 300 tokens, longer than any window or original
// context in them.
#include <boost/json.hpp>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "tests/engine/model/model_fixture.h"

namespace kvfs::model::testing {
namespace {

namespace fs = std::filesystem;

const fs::path kGoldens = KVFS_REPO_DIR "/tests/engine/model/goldens/families";

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

Loaded load_described(const fs::path& path, Compute compute) {
  const DeviceChoice cpu{.kind = DeviceChoice::Kind::kCpu};
  auto card = describe_model(path, compute, cpu, {});
  if (!card) {
    ADD_FAILURE() << card.error().message();
    return {};
  }
  auto model = cpu::load_cpu_model(**card, {.device = cpu, .compute = compute, .threads = 2},
                                   cpu::best_kernels());
  if (!model) {
    ADD_FAILURE() << model.error().message();
    return {};
  }
  return {*std::move(card), *std::move(model)};
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
  Loaded loaded(Compute compute) { return load_described(kGoldens / GetParam(), compute); }
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

TEST_P(EveryFamily, FastModeIsNearAndHasOnePath) {
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
  for (std::size_t i = 237; i < ids.size(); ++i) by_steps = generate(model, *parts, ids[i]);
  EXPECT_EQ(by_steps, logits);
  EXPECT_EQ(kv_bytes(model, *parts), kv_bytes(model, *whole));
}

TEST(Families, EveryFamilyHasItsTinyModel) {
  for (const char* family : {"llama", "mistral", "mixtral", "smollm3", "qwen2", "qwen3",
                             "qwen3_moe", "phi3", "gemma2", "gemma3", "gpt2", "gpt_neox", "olmo2"})
    EXPECT_TRUE(fs::exists(kGoldens / family / "golden.json")) << family;
}

}  // namespace
}  // namespace kvfs::model::testing
