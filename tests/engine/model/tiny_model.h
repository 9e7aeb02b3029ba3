// Writes small GGUF files of the llama family: random weights of any kind, and broken ones.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "codec/base/bytes.h"
#include "codec/container/gguf.h"
#include "engine/model/dequantize.h"

namespace kvfs::model::testing {

class TinyModel {
 public:
  static constexpr std::uint32_t kLayers = 2;
  static constexpr std::uint32_t kWidth = 64;
  static constexpr std::uint32_t kHeads = 4;
  static constexpr std::uint32_t kKvHeads = 2;
  static constexpr std::uint32_t kHeadWidth = 32;  // not width / heads
  static constexpr std::uint32_t kFfn = 96;
  static constexpr std::uint32_t kVocab = 260;

  explicit TinyModel(container::GgmlType kind) : kind_(kind) {
    texts_["general.architecture"] = "llama";
    numbers_ = {{"llama.block_count", kLayers},
                {"llama.context_length", 1024},
                {"llama.embedding_length", kWidth},
                {"llama.feed_forward_length", kFfn},
                {"llama.attention.head_count", kHeads},
                {"llama.attention.head_count_kv", kKvHeads},
                {"llama.attention.key_length", kHeadWidth},
                {"llama.attention.value_length", kHeadWidth},
                {"llama.rope.dimension_count", kHeadWidth},
                {"tokenizer.ggml.bos_token_id", 256},
                {"tokenizer.ggml.eos_token_id", 257}};
    add_matrix("token_embd.weight", kWidth, kVocab);
    add_vector("output_norm.weight", kWidth, 1.0F);
    for (std::uint32_t i = 0; i < kLayers; ++i) {
      const std::string p = "blk." + std::to_string(i) + ".";
      add_vector(p + "attn_norm.weight", kWidth, 1.0F);
      add_matrix(p + "attn_q.weight", kWidth, kHeads * kHeadWidth);
      add_matrix(p + "attn_k.weight", kWidth, kKvHeads * kHeadWidth);
      add_matrix(p + "attn_v.weight", kWidth, kKvHeads * kHeadWidth);
      add_matrix(p + "attn_output.weight", kHeads * kHeadWidth, kWidth);
      add_vector(p + "ffn_norm.weight", kWidth, 1.0F);
      add_matrix(p + "ffn_gate.weight", kWidth, kFfn);
      add_matrix(p + "ffn_up.weight", kWidth, kFfn);
      add_matrix(p + "ffn_down.weight", kFfn, kWidth);
    }
  }

  std::map<std::string, std::string> texts_;
  std::map<std::string, std::uint32_t> numbers_;
  struct Tensor {
    std::string name;
    container::GgmlType type;
    std::vector<std::uint64_t> dims;
    Bytes bytes;
  };
  std::vector<Tensor> tensors_;

  void add_matrix(const std::string& name, std::uint32_t inputs, std::uint32_t outputs) {
    Tensor t{name, kind_, {inputs, outputs}, {}};
    std::normal_distribution<float> normal(0.0F, 1.0F / std::sqrt(static_cast<float>(inputs)));
    for (std::uint32_t i = 0; i < inputs * outputs / block_elements(kind_); ++i)
      add_block(t.bytes, normal);
    tensors_.push_back(std::move(t));
  }
  void add_vector(const std::string& name, std::uint32_t length, float value) {
    ByteWriter bytes;
    for (std::uint32_t i = 0; i < length; ++i)
      bytes.number(value + 0.01F * static_cast<float>(i % 7));
    tensors_.push_back({name, container::GgmlType::kF32, {length}, bytes.take()});
  }
  Tensor& tensor(const std::string& name) {
    for (Tensor& t : tensors_) {
      if (t.name == name) return t;
    }
    std::abort();
  }

  std::filesystem::path write(const std::string& file_name) const {
    ByteWriter head;
    head.raw(as_bytes("GGUF"));
    head.number(std::uint32_t{3});
    head.number(static_cast<std::uint64_t>(tensors_.size()));
    head.number(static_cast<std::uint64_t>(texts_.size() + numbers_.size() + 1 + 5));
    for (const auto& [key, value] : texts_) {
      put_key(head, key, 8);
      put_text(head, value);
    }
    for (const auto& [key, value] : numbers_) {
      put_key(head, key, 4);
      head.number(value);
    }
    put_key(head, "llama.attention.layer_norm_rms_epsilon", 6);
    head.number(1e-5F);
    put_tokenizer(head);
    std::uint64_t offset = 0;
    for (const Tensor& t : tensors_) {
      put_text(head, t.name);
      head.number(static_cast<std::uint32_t>(t.dims.size()));
      for (const std::uint64_t dim : t.dims) head.number(dim);
      head.number(static_cast<std::uint32_t>(t.type));
      head.number(offset);
      offset += (t.bytes.size() + 31) / 32 * 32;
    }
    while (head.bytes().size() % 32 != 0) head.number(std::uint8_t{0});
    for (const Tensor& t : tensors_) {
      head.raw(t.bytes);
      while (head.bytes().size() % 32 != 0) head.number(std::uint8_t{0});
    }
    const std::filesystem::path path = std::filesystem::path(::testing::TempDir()) / file_name;
    std::ofstream file(path, std::ios::binary | std::ios::trunc);
    file.write(reinterpret_cast<const char*>(head.bytes().data()),
               static_cast<std::streamsize>(head.bytes().size()));
    return path;
  }

 private:
  static void put_text(ByteWriter& out, const std::string& text) {
    out.number(static_cast<std::uint64_t>(text.size()));
    out.raw(as_bytes(text));
  }
  static void put_key(ByteWriter& out, const std::string& key, std::uint32_t type) {
    put_text(out, key);
    out.number(type);
  }
  // A byte-level BPE without merges: the 256 bytes as GPT-2 spells them, two end markers, padding.
  static void put_tokenizer(ByteWriter& out) {
    put_key(out, "tokenizer.ggml.model", 8);
    put_text(out, "gpt2");
    put_key(out, "tokenizer.ggml.pre", 8);
    put_text(out, "smollm");
    put_key(out, "tokenizer.ggml.tokens", 9);
    out.number(std::uint32_t{8});
    out.number(std::uint64_t{kVocab});
    std::uint32_t next = 256;
    for (std::uint32_t byte = 0; byte < 256; ++byte) {
      const bool shown = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
      const std::uint32_t point = shown ? byte : next++;
      std::string utf8;
      if (point < 128)
        utf8 = static_cast<char>(point);
      else
        utf8 = {static_cast<char>(0xC0 | point >> 6), static_cast<char>(0x80 | (point & 63))};
      put_text(out, utf8);
    }
    for (const char* name : {"<|begin|>", "<|end|>", "<|a|>", "<|b|>"}) put_text(out, name);
    put_key(out, "tokenizer.ggml.token_type", 9);
    out.number(std::uint32_t{5});
    out.number(std::uint64_t{kVocab});
    for (std::uint32_t i = 0; i < kVocab; ++i) out.number(std::int32_t{i < 256 ? 1 : 3});
    put_key(out, "tokenizer.ggml.merges", 9);
    out.number(std::uint32_t{8});
    out.number(std::uint64_t{0});
  }

  void add_block(Bytes& bytes, std::normal_distribution<float>& normal) {
    using container::GgmlType;
    ByteWriter out;
    const auto half = [&](float x) { out.number(static_cast<std::uint16_t>(to_half(x))); };
    switch (kind_) {
      case GgmlType::kF32:
        out.number(normal(generator_));
        break;
      case GgmlType::kF16:
        half(normal(generator_));
        break;
      case GgmlType::kBF16:
        out.number(float_to_bf16(normal(generator_)));
        break;
      case GgmlType::kQ8_0:
        half(normal.stddev() / 64.0F);
        for (int i = 0; i < 32; ++i)
          out.number(static_cast<std::int8_t>(static_cast<int>(generator_() % 255) - 127));
        break;
      case GgmlType::kQ5_0:
      case GgmlType::kQ5_1:
        half(normal.stddev() / 8.0F);
        if (kind_ == GgmlType::kQ5_1) half(normal.stddev() * -2.0F);
        for (int i = 0; i < 20; ++i) out.number(static_cast<std::uint8_t>(generator_()));
        break;
      default:
        half(normal.stddev() / 4.0F);
        if (kind_ == GgmlType::kQ4_1) half(normal.stddev() * -2.0F);
        for (int i = 0; i < 16; ++i) out.number(static_cast<std::uint8_t>(generator_()));
    }
    bytes.insert(bytes.end(), out.bytes().begin(), out.bytes().end());
  }
  // Towards zero, normal numbers only: enough for weights.
  static std::uint32_t to_half(float x) {
    std::uint32_t bits;
    std::memcpy(&bits, &x, 4);
    const std::int32_t exponent = static_cast<std::int32_t>((bits >> 23) & 255U) - 112;
    if (exponent <= 0) return 0;
    return ((bits >> 16) & 0x8000U) | (static_cast<std::uint32_t>(exponent) << 10) |
           ((bits >> 13) & 1023U);
  }

  container::GgmlType kind_;
  std::mt19937 generator_{11};
};

}  // namespace kvfs::model::testing
