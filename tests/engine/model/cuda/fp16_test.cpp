// Weights of fp16: the fast kernels multiply them as they are, activations are fp16 beside them,
// and all that holds for bf16 holds for them.
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "codec/base/bytes.h"
#include "engine/model/cuda/decode.h"
#include "tests/engine/model/cuda/kernel_fixture.h"
#include "tests/engine/model/cuda/loaded_model.h"

namespace kvfs::model::cuda {
namespace {

namespace fs = std::filesystem;

// ---- the generated path's products

class CudaFp16Products : public CudaKernels<__half> {
 protected:
  static constexpr int kOutputs = 960;
  static constexpr int kInputs = 576;
  static constexpr float kEpsilon = 1e-5F;

  CudaFp16Products() {
    random_.seed(std::random_device{}());
    if (!has_gpu()) return;
    w_ = normal(kOutputs * kInputs, 0.05F);
    residual_ = normal<float>(kMaxBatch * kInputs, 3.0F);
    for (std::size_t i = 0; i < residual_.size(); ++i) {
      x_.push_back(rounded<__half>(residual_[i]));
      if (i % kTileOutputs == 0) squares_.push_back(0.0F);
      squares_.back() += residual_[i] * residual_[i];
    }
  }
  double scale_of(int row) const {
    double sum = 0.0;
    for (int i = 0; i < kInputs; ++i)
      sum += std::pow(double{residual_[static_cast<std::size_t>(row * kInputs + i)]}, 2);
    return 1.0 / std::sqrt(sum / kInputs + double{kEpsilon});
  }
  double dot(int output, int row) const {
    double sum = 0.0;
    for (int k = 0; k < kInputs; ++k) {
      sum += double{number(w_[static_cast<std::size_t>(output * kInputs + k)])} *
             number(x_[static_cast<std::size_t>(row * kInputs + k)]);
    }
    return sum;
  }
  template <class E, class Run>
  static void expect_company_free(const std::vector<E>& together, int width, const Run& run) {
    for (const int rows : {1, 3, 8, 9}) {
      for (int first = 0; first + rows <= kMaxBatch; first += rows) {
        const std::vector<E> mine(together.begin() + first * width,
                                  together.begin() + (first + rows) * width);
        ASSERT_TRUE(same_bits(run(first, rows), mine)) << rows << " rows from " << first;
      }
    }
  }

  std::vector<__half> w_, x_;
  std::vector<float> residual_, squares_;
};

TEST_F(CudaFp16Products, AreRightAndOfTheSameBitsInAnyCompany) {
  const DeviceArray<__half> weights(w_);
  const DeviceArray<__half> x(x_);
  const DeviceArray<float> squares(squares_);
  const Matrix matrix{weights.get(), kOutputs, kInputs, WeightKind::kF16};
  const auto in = [&](int first) {
    return NormRows{x.get() + first * kInputs, squares.get() + first * (kInputs / kTileOutputs)};
  };
  std::vector<double> projected;
  std::vector<double> gated;
  for (int row = 0; row < kMaxBatch; ++row) {
    const double scale = scale_of(row);
    for (int n = 0; n < kOutputs; ++n) projected.push_back(scale * dot(n, row));
    const double* mine = &projected[static_cast<std::size_t>(row * kOutputs)];
    for (int n = 0; n < kOutputs / 2; ++n)
      gated.push_back(mine[n] / (1.0 + std::exp(-mine[n])) * mine[kOutputs / 2 + n]);
  }
  const auto project_rows = [&](int first, int rows) {
    const DeviceArray<float> y(static_cast<std::size_t>(rows * kOutputs));
    must(project(matrix, in(first), kEpsilon, rows, y.get(), nullptr));
    return y.host();
  };
  const auto all = project_rows(0, kMaxBatch);
  expect_close(all, projected, 1e-5);
  expect_company_free(all, kOutputs, project_rows);

  const auto gate_rows = [&](int first, int rows) {
    const DeviceArray<__half> out(static_cast<std::size_t>(rows * kOutputs / 2));
    must(gate(matrix, in(first), kEpsilon, rows, out.get(), nullptr));
    return out.host();
  };
  const auto all_gated = gate_rows(0, kMaxBatch);
  expect_close(all_gated, gated);
  expect_company_free(all_gated, kOutputs / 2, gate_rows);

  const auto before = normal<float>(kMaxBatch * kOutputs);
  const auto norm = normal<float>(kOutputs);
  std::vector<double> sums;
  std::vector<double> weighted;
  for (int row = 0; row < kMaxBatch; ++row) {
    for (int n = 0; n < kOutputs; ++n) {
      sums.push_back(before[static_cast<std::size_t>(row * kOutputs + n)] + dot(n, row));
      weighted.push_back(sums.back() * norm[static_cast<std::size_t>(n)]);
    }
  }
  const DeviceArray<float> norm_weight(norm);
  std::vector<__half> nexts;
  const auto add_rows = [&](int first, int rows) {
    const DeviceArray<float> residual(std::vector<float>(
        before.begin() + first * kOutputs, before.begin() + (first + rows) * kOutputs));
    const DeviceArray<__half> next(static_cast<std::size_t>(rows * kOutputs));
    const DeviceArray<float> next_squares(static_cast<std::size_t>(rows * kOutputs / kTileOutputs));
    must(add_product(matrix, in(first).x, rows, residual.get(), norm_weight.get(),
                     {next.get(), next_squares.get()}, nullptr));
    nexts = next.host();
    return residual.host();
  };
  const auto added = add_rows(0, kMaxBatch);
  expect_close(added, sums, 1e-5);
  expect_close(nexts, weighted);
  expect_company_free(added, kOutputs, add_rows);
}

TEST_F(CudaFp16Products, WhatIsTooLargeBecomesTheLargest) {
  if (!has_gpu()) GTEST_SKIP() << "no NVIDIA GPU here";
  const DeviceArray<float> in(std::vector<float>{1e6F, -1e6F, 65504.0F, 1.0F});
  const DeviceArray<__half> out(4);
  must(round_to(in.get(), 4, out.get(), nullptr));
  const auto got = out.host();
  EXPECT_EQ(number(got[0]), 65504.0F);
  EXPECT_EQ(number(got[1]), -65504.0F);
  EXPECT_EQ(number(got[2]), 65504.0F);
  EXPECT_EQ(number(got[3]), 1.0F);
}

// ---- a whole model: a small llama of random fp16 weights, or its weights rounded to bf16

class CudaFp16Model : public testing::Test {
 protected:
  static constexpr int kVocab = 512, kWidth = 256, kHeads = 4, kKvHeads = 2, kHeadWidth = 64,
                       kFfn = 512, kLayers = 4;

  void SetUp() override {
    if (!has_gpu()) GTEST_SKIP() << "no NVIDIA GPU here";
    folder_ = fs::path(testing::TempDir()) / ("fp16-" + std::to_string(::getpid()));
    exact_ = write("exact", false);
    rounded_ = write("rounded", true);
  }
  void TearDown() override {
    if (!folder_.empty()) fs::remove_all(folder_);
  }

  static Loaded load_folder(const fs::path& path, Compute compute) {
    const DeviceChoice gpu{.kind = DeviceChoice::Kind::kCuda};
    Loaded out;
    out.card = value_of(describe_model(path, compute, gpu, {}));
    out.model = value_of(load_model(*out.card, {.device = gpu, .compute = compute}));
    return out;
  }
  static std::vector<float> read(Model& model, Sequence& sequence,
                                 std::span<const TokenId> tokens) {
    std::vector<float> logits(kVocab);
    must(model.prefill(sequence, tokens, logits));
    return logits;
  }
  static std::vector<float> generate(Model& model, Sequence& sequence, TokenId token) {
    std::vector<float> logits(kVocab);
    DecodeItem item{&sequence, token, logits};
    must(model.decode({&item, 1}));
    return logits;
  }
  static std::vector<TokenId> tokens(int count, unsigned seed) {
    std::mt19937 random(seed);
    std::vector<TokenId> out;
    for (int i = 0; i < count; ++i) out.push_back(static_cast<TokenId>(random() % kVocab));
    return out;
  }
  static std::vector<KvPiece> kv(Model& model, const Sequence& sequence) {
    std::vector<KvPiece> out;
    for (std::uint16_t layer = 0; layer < kLayers; ++layer) {
      for (int block = 0; block * kBlockTokens < sequence.next_pos(); ++block) {
        for (KvPiece& piece : value_of(model.kv_out(sequence, layer, block)))
          out.push_back(std::move(piece));
      }
    }
    return out;
  }
  static Bytes bytes_of(const std::vector<KvPiece>& pieces) {
    Bytes out;
    for (const KvPiece& piece : pieces) {
      out.insert(out.end(), piece.key.begin(), piece.key.end());
      out.insert(out.end(), piece.value.begin(), piece.value.end());
    }
    return out;
  }

  fs::path exact_, rounded_;

 private:
  // A Hugging Face folder. As bf16, the same weights rounded.
  fs::path write(const std::string& name, bool bf16) const {
    std::mt19937 random(7);
    std::string header = "{";
    Bytes data;
    const auto add = [&](const std::string& tensor, int rows, int columns) {
      const float scale = columns > 0 ? 1.2F / std::sqrt(static_cast<float>(columns)) : 0.1F;
      std::normal_distribution<float> draw(columns > 0 ? 0.0F : 1.0F, scale);
      const std::size_t begin = data.size();
      for (int i = 0; i < rows * std::max(columns, 1); ++i) {
        const __half exact = __float2half(draw(random));
        const __nv_bfloat16 less = __float2bfloat16(__half2float(exact));
        const auto bits =
            bf16 ? std::bit_cast<std::uint16_t>(less) : std::bit_cast<std::uint16_t>(exact);
        data.push_back(static_cast<std::uint8_t>(bits & 0xffU));
        data.push_back(static_cast<std::uint8_t>(bits >> 8));
      }
      header += (header.size() > 1 ? ",\"" : "\"") + tensor + "\":{\"dtype\":\"" +
                (bf16 ? "BF16" : "F16") + "\",\"shape\":[" + std::to_string(rows) +
                (columns > 0 ? "," + std::to_string(columns) : "") + "],\"data_offsets\":[" +
                std::to_string(begin) + "," + std::to_string(data.size()) + "]}";
    };
    add("model.embed_tokens.weight", kVocab, kWidth);
    add("lm_head.weight", kVocab, kWidth);
    add("model.norm.weight", kWidth, 0);
    for (int i = 0; i < kLayers; ++i) {
      const std::string p = "model.layers." + std::to_string(i) + ".";
      add(p + "input_layernorm.weight", kWidth, 0);
      add(p + "post_attention_layernorm.weight", kWidth, 0);
      add(p + "self_attn.q_proj.weight", kHeads * kHeadWidth, kWidth);
      add(p + "self_attn.k_proj.weight", kKvHeads * kHeadWidth, kWidth);
      add(p + "self_attn.v_proj.weight", kKvHeads * kHeadWidth, kWidth);
      add(p + "self_attn.o_proj.weight", kWidth, kHeads * kHeadWidth);
      add(p + "mlp.gate_proj.weight", kFfn, kWidth);
      add(p + "mlp.up_proj.weight", kFfn, kWidth);
      add(p + "mlp.down_proj.weight", kWidth, kFfn);
    }
    header += "}";
    while (header.size() % 8 != 0) header += " ";
    const fs::path to = folder_ / name;
    fs::create_directories(to);
    std::ofstream weights(to / "model.safetensors", std::ios::binary);
    const std::uint64_t length = header.size();
    weights.write(reinterpret_cast<const char*>(&length), sizeof length);
    weights << header;
    weights.write(reinterpret_cast<const char*>(data.data()),
                  static_cast<std::streamsize>(data.size()));
    std::ofstream(to / "config.json")
        << R"({"model_type":"llama","vocab_size":512,"hidden_size":256,"intermediate_size":512,)"
           R"("num_hidden_layers":4,"num_attention_heads":4,"num_key_value_heads":2,"head_dim":64,)"
           R"("max_position_embeddings":4096,"rms_norm_eps":1e-5,"rope_theta":10000.0,)"
           R"("hidden_act":"silu","tie_word_embeddings":false,"torch_dtype":"float16"})";
    return to;
  }

  fs::path folder_;
};

double error_of(const std::vector<float>& got, const std::vector<float>& wanted) {
  double error = 0.0;
  double norm = 0.0;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    error += std::pow(double{got[i]} - double{wanted[i]}, 2);
    norm += std::pow(double{wanted[i]}, 2);
  }
  return std::sqrt(error / norm);
}

TEST_F(CudaFp16Model, IsNearerTheReferenceThanInBf16) {
  const Loaded reference = load_folder(exact_, Compute::kReference);
  const Loaded fp16 = load_folder(exact_, Compute::kFast);
  const Loaded bf16 = load_folder(rounded_, Compute::kFast);
  EXPECT_EQ(fp16.model->info().kernel_class, "cuda-fast-fp16-1");
  EXPECT_EQ(fp16.model->info().kv_dtype, DType::kBF16);
  EXPECT_EQ(bf16.model->info().kernel_class, "cuda-fast-4");
  EXPECT_GT(fp16.model->most_ahead(), 0) << "the fast kernels know it";
  const auto ids = tokens(700, 1);
  const auto logits = [&](const Loaded& loaded, bool generated) {
    const auto sequence = loaded.model->new_sequence();
    auto out = read(*loaded.model, *sequence, ids);
    for (int i = 0; generated && i < 8; ++i)
      out = generate(*loaded.model, *sequence, ids[static_cast<std::size_t>(i)]);
    return out;
  };
  for (const bool generated : {false, true}) {
    const auto wanted = logits(reference, generated);
    const double exact = error_of(logits(fp16, generated), wanted);
    const double less = error_of(logits(bf16, generated), wanted);
    std::printf("%s: error %.5f, rounded to bf16 %.5f\n", generated ? "generated" : "read", exact,
                less);
    EXPECT_LT(exact, 0.015);
    EXPECT_LT(exact, 0.6 * less);
  }
}

// Whether of fp16.
class CudaSmallModel : public CudaFp16Model, public testing::WithParamInterface<bool> {
 protected:
  const fs::path& folder() const { return GetParam() ? exact_ : rounded_; }
};
INSTANTIATE_TEST_SUITE_P(Types, CudaSmallModel, testing::Bool(),
                         [](const auto& of) { return of.param ? "fp16" : "bf16"; });

TEST_P(CudaSmallModel, HistoriesHaveTheSameBitsHoweverTheyCame) {
  const Loaded loaded = load_folder(folder(), Compute::kFast);
  Model& model = *loaded.model;
  const auto ids = tokens(1100, 2);
  const auto whole = model.new_sequence();
  const auto expected = read(model, *whole, ids);
  const Bytes all = bytes_of(kv(model, *whole));
  for (const std::size_t cut : {1U, 300U, 512U, 1099U}) {
    const auto parts = model.new_sequence();
    must(model.prefill(*parts, std::span(ids).first(cut), {}));
    EXPECT_TRUE(same_bits(read(model, *parts, std::span(ids).subspan(cut)), expected)) << cut;
    EXPECT_EQ(bytes_of(kv(model, *parts)), all) << cut;
  }

  // Nine forks in one batch, each alone, and one that was brought back.
  std::vector<std::unique_ptr<Sequence>> together;
  std::vector<std::vector<float>> logits(9, std::vector<float>(kVocab));
  for (int i = 0; i < 9; ++i) together.push_back(model.fork(*whole));
  for (int step = 0; step < 3; ++step) {
    std::vector<DecodeItem> items;
    for (std::size_t i = 0; i < together.size(); ++i)
      items.push_back({together[i].get(), static_cast<TokenId>(10 * i) + step, logits[i]});
    must(model.decode(items));
  }
  const auto restored = model.new_sequence();
  for (const KvPiece& piece : kv(model, *whole)) must(model.kv_in(*restored, piece));
  must(model.set_next_pos(*restored, whole->next_pos()));
  std::vector<float> alone;
  for (int step = 0; step < 3; ++step) alone = generate(model, *restored, 80 + step);
  EXPECT_TRUE(same_bits(alone, logits[8]));
  EXPECT_EQ(bytes_of(kv(model, *restored)), bytes_of(kv(model, *together[8])));
}

TEST_P(CudaSmallModel, StepsAheadGiveTheTokensOfOneAtATime) {
  const Loaded loaded = load_folder(folder(), Compute::kFast);
  Model& model = *loaded.model;
  const SamplingParams greedy{.temperature = 0};
  const auto start = model.new_sequence();
  read(model, *start, tokens(300, 3));
  std::vector<TokenId> expected;
  const auto steps = model.fork(*start);
  for (TokenId token = 5; expected.size() < 12; expected.push_back(token)) {
    const auto logits = generate(model, *steps, token);
    token = static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  }
  const auto ahead = model.fork(*start);
  std::vector<TokenId> heard;
  for (std::size_t launched = 0; heard.size() < expected.size();) {
    for (; launched < expected.size() && launched < heard.size() + 2; ++launched) {
      AheadItem item{.sequence = ahead.get(), .sampling = &greedy};
      if (launched == 0) item.token = 5;
      must(model.launch({&item, 1}));
    }
    heard.push_back(value_of(model.hear()).front());
  }
  EXPECT_EQ(heard, expected);
  EXPECT_EQ(bytes_of(kv(model, *ahead)), bytes_of(kv(model, *steps)));
}

// Its last entries pruned, or looked at: the general attention beside the fast products.
TEST_P(CudaSmallModel, PrunedHistoriesGoOnNearTheReference) {
  const Loaded reference = load_folder(folder(), Compute::kReference);
  const Loaded fast = load_folder(folder(), Compute::kFast);
  const auto ids = tokens(400, 4);
  const auto pruned = [&](const Loaded& loaded) {
    Model& model = *loaded.model;
    const auto sequence = model.new_sequence();
    read(model, *sequence, std::span(ids).first(380));
    prune::Kept kept(kLayers, std::vector<prune::KeptEntries>(kKvHeads));
    for (int layer = 0; layer < kLayers; ++layer) {
      for (int head = 0; head < kKvHeads; ++head) {
        for (std::int32_t i = 0; i < 380; ++i)
          if (i % (3 + head) == 0 || i > 370)
            kept[static_cast<std::size_t>(layer)][static_cast<std::size_t>(head)].push_back(i);
      }
    }
    must(model.prune(*sequence, kept));
    read(model, *sequence, std::span(ids).subspan(380));
    return generate(model, *sequence, 9);
  };
  EXPECT_LT(error_of(pruned(fast), pruned(reference)), GetParam() ? 0.015 : 0.05);
}

}  // namespace
}  // namespace kvfs::model::cuda
