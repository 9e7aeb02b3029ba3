// The real model, loaded once a process and mode, and helpers to drive it.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <iterator>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/model/cpu/cpu_model.h"
#include "engine/model/model.h"

namespace kvfs::model::testing {

inline std::string model_path() {
  const char* given = std::getenv("KVFS_MODEL");
  return given != nullptr ? given : KVFS_DEPS_DIR "/models/SmolLM2-135M-Instruct.Q4_1.gguf";
}

struct Loaded {
  std::unique_ptr<ModelCard> card;
  std::unique_ptr<Model> model;
};

inline Loaded load(const std::string& path, Compute compute, int threads,
                   const cpu::Kernels& kernels = cpu::best_kernels(), std::uint64_t budget = 0) {
  auto card = read_card(path, compute, {.kind = DeviceChoice::Kind::kCpu}, {});
  if (!card) {
    ADD_FAILURE() << card.error().message() << " (run scripts/setup, or set KVFS_MODEL)";
    return {};
  }
  LoadOptions options{.device = {.kind = DeviceChoice::Kind::kCpu},
                      .compute = compute,
                      .threads = threads,
                      .kv_budget = budget};
  auto model = cpu::load_cpu_model(**card, options, kernels);
  if (!model) {
    ADD_FAILURE() << model.error().message();
    return {};
  }
  return {*std::move(card), *std::move(model)};
}

// KVFS_DEVICE=cuda runs tests of described models there (scripts/gpu-test).
inline bool on_gpu() {
  const char* device = std::getenv("KVFS_DEVICE");
  return device != nullptr && std::string(device) == "cuda";
}
// A file of the repository, which a packed binary finds through KVFS_SOURCE_DIR.
inline std::filesystem::path goldens() {
  const char* root = std::getenv("KVFS_SOURCE_DIR");
  return std::filesystem::path(root != nullptr ? root : KVFS_REPO_DIR) /
         "tests/engine/model/goldens";
}

// Of a model without a tokenizer.
inline Loaded load_described(const std::filesystem::path& path, Compute compute, int threads = 2,
                             std::uint64_t budget = 0) {
  const DeviceChoice device{.kind =
                                on_gpu() ? DeviceChoice::Kind::kCuda : DeviceChoice::Kind::kCpu};
  auto card = describe_model(path, compute, device, {});
  if (!card) {
    ADD_FAILURE() << card.error().message();
    return {};
  }
  const LoadOptions options{
      .device = device, .compute = compute, .threads = threads, .kv_budget = budget};
  auto model = load_model(**card, options);
  if (!model) {
    ADD_FAILURE() << model.error().message();
    return {};
  }
  return {*std::move(card), *std::move(model)};
}

using Logits = std::vector<float>;

inline Logits room(const Model& model) {
  return Logits(static_cast<std::size_t>(model.info().vocab_size));
}

inline Logits read(Model& model, Sequence& sequence, std::span<const TokenId> tokens) {
  Logits logits = room(model);
  const Status done = model.prefill(sequence, tokens, logits);
  EXPECT_TRUE(done) << (done ? "" : done.error().message());
  return logits;
}

inline Logits generate(Model& model, Sequence& sequence, TokenId token) {
  Logits logits = room(model);
  DecodeItem item{&sequence, token, logits};
  const Status done = model.decode({&item, 1});
  EXPECT_TRUE(done) << (done ? "" : done.error().message());
  return logits;
}

inline TokenId best(const Logits& logits) {
  return static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

// All KV of a sequence as the model gives it out.
inline std::vector<KvPiece> all_kv(Model& model, const Sequence& sequence) {
  std::vector<KvPiece> all;
  const int blocks = (sequence.next_pos() + kBlockTokens - 1) / kBlockTokens;
  for (int block = 0; block < blocks; ++block) {
    for (std::size_t layer = 0; layer < model.info().layers.size(); ++layer) {
      auto pieces = model.kv_out(sequence, static_cast<std::uint16_t>(layer), block);
      EXPECT_TRUE(pieces) << (pieces ? "" : pieces.error().message());
      if (pieces) std::move(pieces->begin(), pieces->end(), std::back_inserter(all));
    }
  }
  return all;
}

inline Bytes kv_bytes(Model& model, const Sequence& sequence) {
  Bytes bytes;
  for (const KvPiece& piece : all_kv(model, sequence)) {
    bytes.insert(bytes.end(), piece.key.begin(), piece.key.end());
    bytes.insert(bytes.end(), piece.value.begin(), piece.value.end());
  }
  return bytes;
}

inline std::vector<TokenId> some_tokens(std::size_t count, std::int32_t vocab,
                                        std::uint32_t seed = 1) {
  std::vector<TokenId> tokens(count);
  for (TokenId& token : tokens) {
    seed = seed * 1664525U + 1013904223U;
    token = static_cast<TokenId>((seed >> 8) % static_cast<std::uint32_t>(vocab));
  }
  return tokens;
}

}  // namespace kvfs::model::testing
