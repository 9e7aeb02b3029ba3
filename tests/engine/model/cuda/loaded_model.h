// The default model on the GPU, for tests of a whole model: loaded once a suite and mode.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/model/model.h"
#include "tests/engine/model/cuda/device_array.h"

namespace kvfs::model::cuda {

inline std::filesystem::path model_path() {
  if (const char* path = std::getenv("KVFS_MODEL")) return path;
  return std::filesystem::path(KVFS_DEPS_DIR) / "models/SmolLM2-135M-Instruct.Q4_1.gguf";
}

// A file of the repository, which a packed binary finds through KVFS_SOURCE_DIR.
inline std::filesystem::path source_file(const char* name) {
  const char* root = std::getenv("KVFS_SOURCE_DIR");
  return std::filesystem::path(root != nullptr ? root : KVFS_REPO_DIR) / name;
}

template <class T>
T value_of(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().message());
  return *std::move(result);
}
inline void must(const Status& status) {
  if (!status) throw std::runtime_error(status.error().message());
}

struct Loaded {
  std::unique_ptr<ModelCard> card;
  std::unique_ptr<Model> model;
};

inline Loaded load(Compute compute, std::uint64_t kv_budget = 0) {
  const DeviceChoice gpu{.kind = DeviceChoice::Kind::kCuda};
  Loaded out;
  out.card = value_of(read_card(model_path(), compute, gpu, {}));
  out.model =
      value_of(load_model(*out.card, {.device = gpu, .compute = compute, .kv_budget = kv_budget}));
  return out;
}

// Suites derive from this; models live from their first use to the suite's end.
class CudaModelTest : public testing::TestWithParam<Compute> {
 public:
  static void TearDownTestSuite() { models().clear(); }

 protected:
  void SetUp() override {
    if (!has_gpu()) GTEST_SKIP() << "no NVIDIA GPU here";
  }

  static Model& model(Compute compute) {
    Loaded& loaded = models()[compute];
    if (!loaded.model) loaded = load(compute);
    return *loaded.model;
  }

  static std::vector<float> read(Model& model, Sequence& sequence,
                                 std::span<const TokenId> tokens) {
    std::vector<float> logits(static_cast<std::size_t>(model.info().vocab_size));
    must(model.prefill(sequence, tokens, logits));
    return logits;
  }
  static std::vector<float> generate(Model& model, Sequence& sequence, TokenId token) {
    std::vector<float> logits(static_cast<std::size_t>(model.info().vocab_size));
    DecodeItem item{&sequence, token, logits};
    must(model.decode({&item, 1}));
    return logits;
  }

 private:
  static std::map<Compute, Loaded>& models() {
    static std::map<Compute, Loaded> models;
    return models;
  }
};

}  // namespace kvfs::model::cuda
