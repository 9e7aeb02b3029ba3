// Hugging Face folders that are wrong, by mistake or on purpose: each is refused, and the error
// names the file, the field and the reason.
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <filesystem>
#include <fstream>
#include <functional>

#include "codec/container/safetensors.h"
#include "engine/model/model.h"

namespace kvfs::model::testing {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;
using container::SafetensorsHeader;
using container::TensorEntry;

constexpr ErrorCode kCorrupt = ErrorCode::kCorrupt;
constexpr ErrorCode kInvalid = ErrorCode::kInvalid;
constexpr ErrorCode kUnsupported = ErrorCode::kUnsupported;
constexpr ErrorCode kNotFound = ErrorCode::kNotFound;

// A llama of one layer that loads, until a case has bent it.
struct Folder {
  fs::path path;
  json::object config = json::parse(R"({"model_type": "llama", "hidden_size": 64,
    "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 32, "max_position_embeddings": 128, "vocab_size": 40,
    "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true})")
                            .as_object();
  std::vector<TensorEntry> tensors;
  std::optional<std::string> config_text;  // instead of config
  std::optional<std::string> header_text;  // instead of the tensors' header
  std::optional<std::uint64_t> header_length;
  std::size_t cut = 0;  // bytes missing at the end
  std::string weights_name = "model.safetensors";
  std::optional<std::string> index_text;

  explicit Folder(const std::string& name) : path(fs::path(::testing::TempDir()) / name) {
    add("model.embed_tokens.weight", {40, 64});
    add("model.norm.weight", {64});
    const std::string layer = "model.layers.0.";
    add(layer + "input_layernorm.weight", {64});
    add(layer + "post_attention_layernorm.weight", {64});
    add(layer + "self_attn.q_proj.weight", {64, 64});
    add(layer + "self_attn.k_proj.weight", {32, 64});
    add(layer + "self_attn.v_proj.weight", {32, 64});
    add(layer + "self_attn.o_proj.weight", {64, 64});
    add(layer + "mlp.gate_proj.weight", {64, 64});
    add(layer + "mlp.up_proj.weight", {64, 64});
    add(layer + "mlp.down_proj.weight", {64, 64});
  }
  void add(std::string name, std::vector<std::uint64_t> shape) {
    tensors.push_back({.name = std::move(name), .dtype = DType::kBF16, .shape = std::move(shape)});
  }
  TensorEntry& tensor(std::string_view name) {
    for (TensorEntry& each : tensors) {
      if (each.name == name) return each;
    }
    std::abort();
  }
  json::object& rope(const char* type) {
    return config["rope_scaling"].emplace_object() = {{"rope_type", type}, {"factor", 4.0}};
  }

  void write() const {
    fs::remove_all(path);
    fs::create_directories(path);
    put("config.json", config_text ? *config_text : json::serialize(config));
    if (index_text) put("model.safetensors.index.json", *index_text);
    SafetensorsHeader header{.tensors = tensors};
    const Bytes front = make_safetensors_header(header);
    std::string bytes(as_text(front));
    if (header_text) {
      const std::uint64_t length = header_text->size();
      bytes = std::string(reinterpret_cast<const char*>(&length), 8) + *header_text;
    }
    if (header_length) std::memcpy(bytes.data(), &*header_length, 8);
    bytes.resize(bytes.size() + header.tensors.back().end);
    bytes.resize(bytes.size() - std::min(bytes.size(), cut));
    if (!weights_name.empty()) put(weights_name, bytes);
  }
  void put(const std::string& name, const std::string& text) const {
    std::ofstream(path / name, std::ios::binary) << text;
  }
};

Result<std::unique_ptr<ModelCard>> describe(const fs::path& path) {
  return describe_model(path, Compute::kFast, {.kind = DeviceChoice::Kind::kCpu}, {});
}

struct Case {
  const char* name;
  ErrorCode code;
  std::vector<std::string> words;  // file, field, reason
  std::function<void(Folder&)> bend;
};

const std::vector<Case>& cases() {
  static const std::vector<Case> kCases = {
      {"ConfigIsNoJson",
       kCorrupt,
       {"config.json", "JSON"},
       [](Folder& f) { f.config_text = "{\"model_type\": \"llama\""; }},
      {"ConfigIsAList",
       kCorrupt,
       {"config.json", "not an object"},
       [](Folder& f) { f.config_text = "[1, 2]"; }},
      {"ConfigIsEmpty", kCorrupt, {"config.json", "empty"}, [](Folder& f) { f.config_text = ""; }},
      {"ConfigIsAWellOfBrackets",
       kCorrupt,
       {"config.json", "JSON"},
       [](Folder& f) { f.config_text = "{\"a\":" + std::string(100000, '['); }},
      {"NoModelType",
       kNotFound,
       {"config.json", "model_type", "missing"},
       [](Folder& f) { f.config.erase("model_type"); }},
      {"ModelTypeIsANumber",
       kInvalid,
       {"config.json", "model_type", "string"},
       [](Folder& f) { f.config["model_type"] = 3; }},
      {"UnknownFamily",
       kUnsupported,
       {"model_type", "mamba2", "llama", "gemma3_text"},
       [](Folder& f) { f.config["model_type"] = "mamba2"; }},
      {"WeightsPackedByOthers",
       kUnsupported,
       {"config.json", "quantization_config"},
       [](Folder& f) {
         f.config["quantization_config"] = {{"quant_method", "gptq"}};
       }},
      {"NoLayers",
       kInvalid,
       {"num_hidden_layers", "0"},
       [](Folder& f) { f.config["num_hidden_layers"] = 0; }},
      {"MoreLayersThanCanBe",
       kInvalid,
       {"num_hidden_layers", "1024"},
       [](Folder& f) { f.config["num_hidden_layers"] = 4000000000U; }},
      {"HalfALayer",
       kInvalid,
       {"num_hidden_layers", "whole"},
       [](Folder& f) { f.config["num_hidden_layers"] = 1.5; }},
      {"NegativeWidth",
       kInvalid,
       {"hidden_size", "-64"},
       [](Folder& f) { f.config["hidden_size"] = -64; }},
      {"WidthOfNoKernel",
       kUnsupported,
       {"hidden_size", "72", "multiple of 32"},
       [](Folder& f) { f.config["hidden_size"] = 72; }},
      {"HeadsThatShareUnevenly",
       kInvalid,
       {"num_attention_heads", "num_key_value_heads"},
       [](Folder& f) { f.config["num_key_value_heads"] = 3; }},
      {"HeadsThatDoNotDivideTheWidth",
       kInvalid,
       {"hidden_size", "heads"},
       [](Folder& f) {
         f.config.erase("head_dim");
         f.config["num_attention_heads"] = 3;
         f.config["num_key_value_heads"] = 3;
       }},
      {"EpsilonIsText",
       kInvalid,
       {"rms_norm_eps", "number"},
       [](Folder& f) { f.config["rms_norm_eps"] = "1e-5"; }},
      {"EpsilonIsNegative",
       kInvalid,
       {"rms_norm_eps", "-1"},
       [](Folder& f) { f.config["rms_norm_eps"] = -1.0; }},
      {"RopeBaseIsZero",
       kInvalid,
       {"rope_theta", "0"},
       [](Folder& f) { f.config["rope_theta"] = 0.0; }},
      {"RopeOfAnUnknownKind",
       kUnsupported,
       {"rope_scaling.rope_type", "dynamic", "llama3"},
       [](Folder& f) { f.rope("dynamic"); }},
      {"Llama3WithoutItsFactors",
       kNotFound,
       {"rope_scaling.low_freq_factor", "missing"},
       [](Folder& f) { f.rope("llama3"); }},
      {"LongRopeWithTooFewFactors",
       kInvalid,
       {"rope_scaling.short_factor", "3", "16"},
       [](Folder& f) {
         json::object& rope = f.rope("longrope");
         rope["short_factor"] = {1.0, 1.0, 1.0};
         rope["long_factor"] = {1.0, 1.0, 1.0};
         f.config["original_max_position_embeddings"] = 64;
       }},
      {"LongRopeDividesByZero",
       kInvalid,
       {"rope_scaling.short_factor", "0"},
       [](Folder& f) {
         json::object& rope = f.rope("longrope");
         rope["short_factor"] = json::array(16, json::value(0.0));
         f.config["original_max_position_embeddings"] = 64;
       }},
      {"RopeParametersAreAList",
       kInvalid,
       {"rope_parameters", "object"},
       [](Folder& f) { f.config["rope_parameters"] = json::array{1}; }},
      {"AnActivationNobodyKnows",
       kUnsupported,
       {"hidden_act", "relu6"},
       [](Folder& f) { f.config["hidden_act"] = "relu6"; }},
      {"TiedIsAWord",
       kInvalid,
       {"tie_word_embeddings", "true or false"},
       [](Folder& f) { f.config["tie_word_embeddings"] = "yes"; }},
      {"UntiedWithoutOutput",
       kCorrupt,
       {"lm_head.weight", "tie_word_embeddings"},
       [](Folder& f) { f.config["tie_word_embeddings"] = false; }},
      {"LayerTypesOfAnotherModel",
       kInvalid,
       {"layer_types", "2 layers"},
       [](Folder& f) {
         f.config["model_type"] = "mistral";
         f.config["sliding_window"] = 16;
         f.config["layer_types"] = {"full_attention", "full_attention"};
       }},
      {"AWindowOfNothing",
       kInvalid,
       {"sliding_window", "0"},
       [](Folder& f) {
         f.config["model_type"] = "mistral";
         f.config["sliding_window"] = 0;
       }},
      {"ATensorIsMissing",
       kCorrupt,
       {"model.layers.0.mlp.up_proj.weight", "missing"},
       [](Folder& f) { f.tensor("model.layers.0.mlp.up_proj.weight").name = "elsewhere"; }},
      {"ATensorTooMuch",
       kUnsupported,
       {"model.layers.0.self_attn.sinks", "no place"},
       [](Folder& f) { f.add("model.layers.0.self_attn.sinks", {2}); }},
      {"ATensorOfAnotherShape",
       kCorrupt,
       {"k_proj", "[64, 64]", "[64, 32]"},
       [](Folder& f) {
         f.tensor("model.layers.0.self_attn.k_proj.weight").shape = {64, 64};
       }},
      {"AWeightOfWholeNumbers",
       kCorrupt,
       {"model.norm.weight", "missing"},
       [](Folder& f) { f.tensor("model.norm.weight").dtype = DType::kI32; }},
      {"VocabularyOfAnotherSize",
       kCorrupt,
       {"embed_tokens", "40", "41"},
       [](Folder& f) { f.config["vocab_size"] = 41; }},
      {"HeaderLongerThanTheFile",
       kCorrupt,
       {"model.safetensors", "length", "do not fit"},
       [](Folder& f) { f.header_length = 50'000'000; }},
      {"HeaderOfAllMemory",
       kCorrupt,
       {"model.safetensors", "length", "100 MB"},
       [](Folder& f) { f.header_length = ~std::uint64_t{0}; }},
      {"HeaderIsNoJson",
       kCorrupt,
       {"model.safetensors", "JSON"},
       [](Folder& f) { f.header_text = "{'single': 1}"; }},
      {"OffsetsBehindTheEnd",
       kCorrupt,
       {"model.safetensors", "data_offsets"},
       [](Folder& f) { f.cut = 1000; }},
      {"ShapeThatOverflows",
       kCorrupt,
       {"model.safetensors", "shape", "more elements"},
       [](Folder& f) {
         f.header_text =
             R"({"w":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}})";
       }},
      {"NoWeights",
       kNotFound,
       {"model.safetensors", "save_pretrained"},
       [](Folder& f) { f.weights_name = ""; }},
      {"IndexWithoutAMap",
       kCorrupt,
       {"model.safetensors.index.json", "weight_map"},
       [](Folder& f) {
         f.weights_name = "part.safetensors";
         f.index_text = "{}";
       }},
      {"IndexPointsOutOfTheFolder",
       kCorrupt,
       {"index.json", "weight_map", "not a file of the folder"},
       [](Folder& f) {
         f.weights_name = "part.safetensors";
         f.index_text = R"({"weight_map": {"model.norm.weight": "../../etc/passwd"}})";
       }},
      {"IndexNamesAMissingShard",
       kNotFound,
       {"gone.safetensors", "no such file"},
       [](Folder& f) {
         f.weights_name = "part.safetensors";
         f.index_text = R"({"weight_map": {"model.norm.weight": "gone.safetensors"}})";
       }},
      {"IndexPromisesATensor",
       kCorrupt,
       {"index.json", "model.ghost.weight", "lacks it"},
       [](Folder& f) {
         f.weights_name = "part.safetensors";
         f.index_text = R"({"weight_map": {"model.ghost.weight": "part.safetensors"}})";
       }},
  };
  return kCases;
}

class HostileFolder : public ::testing::TestWithParam<std::size_t> {};
INSTANTIATE_TEST_SUITE_P(Cases, HostileFolder, ::testing::Range<std::size_t>(0, cases().size()),
                         [](const auto& of) { return std::string(cases()[of.param].name); });

TEST_P(HostileFolder, IsRefusedWithFileFieldAndReason) {
  const Case& wrong = cases()[GetParam()];
  Folder folder(std::string("hostile-") + wrong.name);
  wrong.bend(folder);
  folder.write();
  const auto card = describe(folder.path);
  ASSERT_FALSE(card);
  EXPECT_EQ(card.error().code, wrong.code) << card.error().message();
  EXPECT_NE(card.error().message().find(folder.path.string()), std::string::npos)
      << card.error().message();
  for (const std::string& words : wrong.words)
    EXPECT_NE(card.error().message().find(words), std::string::npos)
        << words << " in: " << card.error().message();
}

TEST(HostileFolders, TheOneTheyAreMadeFromIsFine) {
  Folder folder("not-hostile");
  folder.write();
  const auto card = describe(folder.path);
  ASSERT_TRUE(card) << card.error().message();
  EXPECT_EQ((*card)->info.name, "not-hostile");
  EXPECT_EQ((*card)->info.vocab_size, 40);
}

TEST(HostileFolders, ATokenizerOfAnotherModelIsRefusedWithFileFieldAndReason) {
  Folder folder("tokens-without-a-row");
  folder.write();
  const auto put_tokenizer = [&](int count) {
    json::object vocab;
    for (int i = 0; i < count; ++i) vocab["w" + std::to_string(i)] = i;
    const json::object model = {{"type", "BPE"}, {"vocab", vocab}, {"merges", json::array()}};
    folder.put("tokenizer.json", json::serialize(json::object{{"model", model}}));
  };
  const DeviceChoice cpu{.kind = DeviceChoice::Kind::kCpu};
  put_tokenizer(40);
  const auto fits = read_card(folder.path, Compute::kFast, cpu, {});
  ASSERT_TRUE(fits) << fits.error().message();
  put_tokenizer(41);
  const auto card = read_card(folder.path, Compute::kFast, cpu, {});
  ASSERT_FALSE(card);
  EXPECT_EQ(card.error().code, kInvalid);
  for (const std::string words :
       {"tokens-without-a-row/tokenizer.json", "model.vocab", "id 40", "embedding has 40 rows"})
    EXPECT_NE(card.error().message().find(words), std::string::npos) << card.error().message();
}

TEST(HostileFolders, AFolderWithoutConfigIsNoModel) {
  const fs::path path = fs::path(::testing::TempDir()) / "no-config";
  fs::create_directories(path);
  const auto card = describe(path);
  ASSERT_FALSE(card);
  EXPECT_EQ(card.error().code, kNotFound);
  EXPECT_NE(card.error().message().find("config.json"), std::string::npos);
}

TEST(FolderFingerprint, FollowsConfigTokenizerAndWeightsAndNothingElse) {
  Folder folder("printed");
  folder.write();
  const fs::path cache = fs::path(::testing::TempDir()) / "folder-fingerprints";
  fs::remove_all(cache);
  const auto print = [&] {
    auto card =
        describe_model(folder.path, Compute::kFast, {.kind = DeviceChoice::Kind::kCpu}, cache);
    EXPECT_TRUE(card);
    return (*card)->info.fingerprint;
  };
  const ModelFingerprint first = print();
  // From the cache: what that says is believed.
  ModelFingerprint said = first;
  said.bytes[0] ^= 1;
  for (const auto& entry : fs::directory_iterator(cache)) {
    std::ifstream from(entry.path());
    std::string identity;
    std::getline(from, identity);
    std::ofstream(entry.path()) << identity << '\n' << said.hex() << '\n';
  }
  EXPECT_EQ(print(), said);
  fs::remove_all(cache);
  EXPECT_EQ(print(), first);
  folder.put("README.md", "hello");
  EXPECT_EQ(print(), first);
  folder.put("tokenizer.json", "{}");
  const ModelFingerprint with_tokenizer = print();
  EXPECT_NE(with_tokenizer, first);
  folder.put("tokenizer.json", "{ }");
  EXPECT_NE(print(), with_tokenizer);
  folder.config["rms_norm_eps"] = 1e-6;
  folder.write();
  const ModelFingerprint other_config = print();
  EXPECT_NE(other_config, first);
  folder.tensor("model.norm.weight").dtype = DType::kF32;
  folder.write();
  EXPECT_NE(print(), other_config);
}

}  // namespace
}  // namespace kvfs::model::testing
