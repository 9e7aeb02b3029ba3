// Every kind of weights, on a random llama of two layers; the budget of KV; files that are wrong.
#include "tests/engine/model/tiny_model.h"

#include "tests/engine/model/model_fixture.h"

namespace kvfs::model::testing {
namespace {

using container::GgmlType;

class EveryKind : public ::testing::TestWithParam<GgmlType> {
 protected:
  std::filesystem::path file() {
    return TinyModel(GetParam()).write("tiny-" + std::string(name_of(GetParam())) + ".gguf");
  }
};
INSTANTIATE_TEST_SUITE_P(Weights, EveryKind,
                         ::testing::Values(GgmlType::kF32, GgmlType::kF16, GgmlType::kBF16,
                                           GgmlType::kQ4_0, GgmlType::kQ4_1, GgmlType::kQ5_0,
                                           GgmlType::kQ5_1, GgmlType::kQ8_0),
                         [](const auto& kind) { return std::string(name_of(kind.param)); });

TEST_P(EveryKind, FastIsNearTheReference) {
  const auto path = file();
  const Loaded fast = load(path, Compute::kFast, 2);
  const Loaded reference = load(path, Compute::kReference, 2);
  ASSERT_TRUE(fast.model && reference.model);
  const std::vector<TokenId> ids = some_tokens(300, TinyModel::kVocab);
  const auto a = fast.model->new_sequence();
  const auto b = reference.model->new_sequence();
  const Logits x = read(*fast.model, *a, ids);
  const Logits y = read(*reference.model, *b, ids);
  double error = 0;
  double norm = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    error += (x[i] - y[i]) * (x[i] - y[i]);
    norm += y[i] * y[i];
  }
  ASSERT_GT(norm, 1.0);
  RecordProperty("error", std::to_string(std::sqrt(error / norm)));
  // int8 activations and bf16 KV; Q5_1's weights are rounded to int8 besides.
  const double allowed = GetParam() == GgmlType::kQ5_1    ? 0.05
                         : block_elements(GetParam()) > 1 ? 0.03
                                                          : 0.01;
  EXPECT_LT(std::sqrt(error / norm), allowed);
}

TEST_P(EveryKind, HasOnePathForReadAndGenerated) {
  const Loaded fast = load(file(), Compute::kFast, 2);
  ASSERT_TRUE(fast.model);
  const std::vector<TokenId> ids = some_tokens(290, TinyModel::kVocab);
  const auto whole = fast.model->new_sequence();
  const Logits expected = read(*fast.model, *whole, ids);
  const auto parts = fast.model->new_sequence();
  read(*fast.model, *parts, std::span(ids).first(250));
  Logits logits;
  for (std::size_t i = 250; i < ids.size(); ++i) logits = generate(*fast.model, *parts, ids[i]);
  EXPECT_EQ(logits, expected);
  EXPECT_EQ(kv_bytes(*fast.model, *parts), kv_bytes(*fast.model, *whole));
}

TEST(TinyModelFile, UntiedOutputAndScaledFrequenciesAreUsed) {
  TinyModel plain(GgmlType::kF32);
  TinyModel changed(GgmlType::kF32);
  changed.add_matrix("output.weight", TinyModel::kWidth, TinyModel::kVocab);
  changed.add_vector("rope_freqs.weight", TinyModel::kHeadWidth / 2, 8.0F);
  const Loaded a = load(plain.write("tied.gguf"), Compute::kFast, 1);
  const Loaded b = load(changed.write("untied.gguf"), Compute::kFast, 1);
  ASSERT_TRUE(a.model && b.model);
  EXPECT_NE(a.card->info.fingerprint, b.card->info.fingerprint);
  EXPECT_NE(a.card->config_json.find("\"tie_word_embeddings\":true"), std::string::npos);
  EXPECT_NE(b.card->config_json.find("\"tie_word_embeddings\":false"), std::string::npos);
  const std::vector<TokenId> ids = some_tokens(20, TinyModel::kVocab);
  const auto x = a.model->new_sequence();
  const auto y = b.model->new_sequence();
  EXPECT_NE(read(*a.model, *x, ids), read(*b.model, *y, ids));
  // Keys at position 0 are not turned, later ones are, by other angles.
  const KvPiece one = all_kv(*a.model, *x)[0];
  const KvPiece two = all_kv(*b.model, *y)[0];
  const std::size_t row = TinyModel::kHeadWidth * 2;
  EXPECT_TRUE(std::equal(one.key.begin(), one.key.begin() + row, two.key.begin()));
  EXPECT_FALSE(std::equal(one.key.begin() + row, one.key.begin() + 2 * row, two.key.begin() + row));
}

TEST(KvBudget, AFullBudgetLeavesTheSequenceAsItWas) {
  const auto path = TinyModel(GgmlType::kF32).write("budget.gguf");
  const std::uint64_t page =
      TinyModel::kLayers * 2 * TinyModel::kKvHeads * 256 * TinyModel::kHeadWidth * 2;
  const Loaded loaded = load(path, Compute::kFast, 1, cpu::best_kernels(), 2 * page);
  ASSERT_TRUE(loaded.model);
  Model& model = *loaded.model;
  EXPECT_EQ(model.kv_bytes_budget(), 2 * page);
  const std::vector<TokenId> ids = some_tokens(600, TinyModel::kVocab);
  const auto sequence = model.new_sequence();
  read(model, *sequence, std::span(ids).first(100));
  EXPECT_EQ(model.kv_bytes_used(), page);
  const Bytes before = kv_bytes(model, *sequence);

  const Status full = model.prefill(*sequence, std::span(ids).subspan(100), {});
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().code, ErrorCode::kTooLarge);
  EXPECT_EQ(sequence->next_pos(), 100);
  EXPECT_EQ(model.kv_bytes_used(), page);
  EXPECT_EQ(kv_bytes(model, *sequence), before);

  const auto fork = model.fork(*sequence);  // shares the page until it writes
  EXPECT_EQ(model.kv_bytes_used(), page);
  generate(model, *fork, 1);
  EXPECT_EQ(model.kv_bytes_used(), 2 * page);
  const auto second = model.fork(*sequence);
  std::vector<Logits> logits(2, room(model));
  DecodeItem items[] = {{sequence.get(), 1, logits[0]}, {second.get(), 1, logits[1]}};
  const Status crowded = model.decode(items);
  ASSERT_FALSE(crowded);
  EXPECT_EQ(crowded.error().code, ErrorCode::kTooLarge);
  EXPECT_EQ(sequence->next_pos(), 100);
  EXPECT_EQ(second->next_pos(), 100);
}

TEST(KvBudget, PastTheContextAndOutsideTheVocabularyAreRefused) {
  const Loaded loaded = load(TinyModel(GgmlType::kQ8_0).write("context.gguf"), Compute::kFast, 1);
  ASSERT_TRUE(loaded.model);
  const auto sequence = loaded.model->new_sequence();
  const std::vector<TokenId> ids = some_tokens(1025, TinyModel::kVocab);
  const Status longer = loaded.model->prefill(*sequence, ids, {});
  ASSERT_FALSE(longer);
  EXPECT_EQ(longer.error().code, ErrorCode::kTooLarge);
  ASSERT_TRUE(loaded.model->prefill(*sequence, std::span(ids).first(1024), {}));
  const std::vector<TokenId> wrong{TinyModel::kVocab};
  const auto other = loaded.model->new_sequence();
  EXPECT_EQ(loaded.model->prefill(*other, wrong, {}).error().code, ErrorCode::kInvalid);
  EXPECT_EQ(other->next_pos(), 0);
}

TEST(KvIn, RefusesDisorderWrongSizesAndMissingLayers) {
  const Loaded loaded = load(TinyModel(GgmlType::kF32).write("kvin.gguf"), Compute::kFast, 1);
  ASSERT_TRUE(loaded.model);
  Model& model = *loaded.model;
  const auto sequence = model.new_sequence();
  read(model, *sequence, some_tokens(40, TinyModel::kVocab));
  const std::vector<KvPiece> pieces = all_kv(model, *sequence);
  const auto target = model.new_sequence();

  KvPiece disorder = pieces[0];
  disorder.positions[5] = 200;
  EXPECT_EQ(model.kv_in(*target, disorder).error().code, ErrorCode::kInvalid);
  KvPiece cut = pieces[0];
  cut.value.pop_back();
  EXPECT_EQ(model.kv_in(*target, cut).error().code, ErrorCode::kInvalid);
  ASSERT_TRUE(model.kv_in(*target, pieces[0]));
  EXPECT_EQ(model.set_next_pos(*target, 40).error().code,
            ErrorCode::kInvalid);  // layer 1 is not there
  ASSERT_TRUE(model.kv_in(*target, pieces[1]));
  EXPECT_EQ(model.set_next_pos(*target, 41).error().code, ErrorCode::kInvalid);
  ASSERT_TRUE(model.set_next_pos(*target, 40));
  EXPECT_EQ(kv_bytes(model, *target), kv_bytes(model, *sequence));
}

// ---- files that are wrong

Error refused(const std::filesystem::path& path,
              const DeviceChoice& device = {.kind = DeviceChoice::Kind::kCpu}) {
  auto card = read_card(path, Compute::kFast, device, {});
  EXPECT_FALSE(card);
  return card ? Error{} : card.error();
}
bool says(const Error& error, const std::string& words) {
  return error.message().find(words) != std::string::npos;
}

TEST(WrongModelFile, AnUnknownFamilyIsNamed) {
  TinyModel model(GgmlType::kF32);
  model.texts_["general.architecture"] = "mamba";
  const Error error = refused(model.write("mamba.gguf"));
  EXPECT_EQ(error.code, ErrorCode::kUnsupported);
  EXPECT_TRUE(says(error, "general.architecture") && says(error, "mamba") && says(error, "llama") &&
              says(error, "mamba.gguf"));
}

TEST(WrongModelFile, AMissingKeyIsNamed) {
  TinyModel model(GgmlType::kF32);
  model.numbers_.erase("llama.attention.head_count");
  EXPECT_TRUE(says(refused(model.write("nokey.gguf")), "llama.attention.head_count"));
}

TEST(WrongModelFile, AMissingAndAStrangeTensorAreNamed) {
  TinyModel missing(GgmlType::kF32);
  missing.tensor("blk.1.ffn_up.weight").name = "blk.1.ffn_sideways.weight";
  const Error error = refused(missing.write("notensor.gguf"));
  EXPECT_EQ(error.code, ErrorCode::kCorrupt);
  EXPECT_TRUE(says(error, "blk.1.ffn_up.weight"));

  TinyModel strange(GgmlType::kF32);
  strange.add_vector("blk.0.attn_sinks.weight", 4, 0.0F);
  const Error other = refused(strange.write("sinks.gguf"));
  EXPECT_EQ(other.code, ErrorCode::kUnsupported);
  EXPECT_TRUE(says(other, "blk.0.attn_sinks.weight"));
}

TEST(WrongModelFile, AWrongShapeIsNamed) {
  TinyModel model(GgmlType::kF32);
  model.numbers_["llama.feed_forward_length"] = 128;
  const Error error = refused(model.write("shape.gguf"));
  EXPECT_EQ(error.code, ErrorCode::kCorrupt);
  EXPECT_TRUE(says(error, "ffn_gate") && says(error, "96") && says(error, "128"));
}

TEST(WrongModelFile, AQuantizedNormIsNamed) {
  TinyModel model(GgmlType::kF32);
  TinyModel::Tensor& tensor = model.tensor("blk.0.ffn_norm.weight");
  tensor.type = GgmlType::kQ5_0;
  tensor.bytes.assign(64 / 32 * block_bytes(GgmlType::kQ5_0), 0);
  const Error error = refused(model.write("q5.gguf"));
  EXPECT_EQ(error.code, ErrorCode::kUnsupported);
  EXPECT_TRUE(says(error, "blk.0.ffn_norm.weight") && says(error, "Q5_0"));
}

TEST(WrongModelFile, ATruncatedOrMissingFileIsNamed) {
  const auto path = TinyModel(GgmlType::kF32).write("cut.gguf");
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 1000);
  EXPECT_EQ(refused(path).code, ErrorCode::kCorrupt);
  EXPECT_EQ(refused("/nonexistent/model.gguf").code, ErrorCode::kNotFound);
}

#ifndef KVFS_CUDA
TEST(WrongModelFile, CudaIsRefusedWithAWayOutWhereThereIsNone) {
  const Error error =
      refused(TinyModel(GgmlType::kF32).write("cuda.gguf"), {.kind = DeviceChoice::Kind::kCuda});
  EXPECT_EQ(error.code, ErrorCode::kUnsupported);
  EXPECT_FALSE(error.way_out.empty());
}
#endif

TEST(Fingerprint, IsCachedByFileIdentityAndFollowsTheBytes) {
  const std::filesystem::path cache = std::filesystem::path(::testing::TempDir()) / "fingerprints";
  std::filesystem::remove_all(cache);
  TinyModel model(GgmlType::kF32);
  const auto path = model.write("print.gguf");
  const auto fingerprint = [&](const std::filesystem::path& at) {
    auto card = read_card(path, Compute::kFast, {.kind = DeviceChoice::Kind::kCpu}, at);
    EXPECT_TRUE(card);
    return (*card)->info.fingerprint;
  };
  const ModelFingerprint first = fingerprint(cache);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(cache), {}), 1);
  EXPECT_EQ(fingerprint(cache), first);
  EXPECT_EQ(fingerprint({}), first);
  model.tensor("blk.0.ffn_down.weight").bytes[3] ^= 1;
  model.write("print.gguf");
  const ModelFingerprint changed = fingerprint(cache);
  EXPECT_NE(changed, first);
  EXPECT_EQ(fingerprint({}), changed);
}

}  // namespace
}  // namespace kvfs::model::testing
