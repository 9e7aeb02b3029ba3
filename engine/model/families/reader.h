// What the families' files read with: fields and tensors, each checked, and noted, so that a tensor
// nobody asked for is found. Used by one thread for the time of one read.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "engine/model/architecture.h"

namespace kvfs::model {

// What a tensor is called in safetensors and in GGUF, without ".weight"; # is the layer's number,
// @ the expert's. Null: that form does not have it.
struct Name {
  const char* hugging_face;
  const char* gguf;
};

// What the sizes are called.
struct SizeKeys {
  Key layers{"num_hidden_layers", "block_count"};
  Key context{"max_position_embeddings", "context_length"};
  Key width{"hidden_size", "embedding_length"};
  Key heads{"num_attention_heads", "attention.head_count"};
  Key kv_heads{"num_key_value_heads", "attention.head_count_kv"};
  Key epsilon{"rms_norm_eps", "attention.layer_norm_rms_epsilon"};
};

enum class Bias { kNone, kIfThere, kNeeded };

class Reader {
 public:
  explicit Reader(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

  const Checkpoint& checkpoint() const { return checkpoint_; }
  const Fields& fields() const { return checkpoint_.fields(); }
  bool is_gguf() const { return checkpoint_.gguf() != nullptr; }

  // Widths, heads, context and empty layers; attention_scale is 1/√head_width.
  Result<Architecture> sizes(const SizeKeys& keys = {});
  // One for all layers.
  Result<int> ffn_width(Key key = {"intermediate_size", "feed_forward_length"});
  // config.json's activation; a GGUF has no field for it.
  Result<Activation> activation(Key key, Activation otherwise);

  bool has(Name name, int layer = 0) const;
  Result<Linear> linear(Name name, int layer, int inputs, int outputs, Bias bias = Bias::kNone);
  Result<Norm> norm(Norm::Kind kind, Name name, int layer, int length);
  // [rows, columns] in any kind that rows can be read of.
  Result<const Tensor*> matrix(const std::string& name, int inputs, int outputs, int experts = 0);
  Result<const Tensor*> vector(const std::string& name, int length);
  // A convolution's weights, a row of taps for each channel.
  Result<const Tensor*> taps(const std::string& name, int channels, int taps);
  // embedding, vocab and output: tied where there is none of its own, or where config.json says so.
  Status vocabulary(Architecture& a, Name embedding, Name output);

  // The last checks: sizes that the kernels know, and no tensor left over (a bias, say, would mean
  // a model that answers wrongly).
  Status finish(const Architecture& architecture) const;

  std::string full_name(Name name, int layer, int expert = 0) const;  // without ".weight"
  tl::unexpected<Error> unsupported(std::string why, std::string way_out = {}) const;

 private:
  Result<const Tensor*> tensor(const std::string& name, const std::vector<std::uint64_t>& dims);
  // Of a kind that holds number by number.
  Result<const Tensor*> plain(const std::string& name, const std::vector<std::uint64_t>& dims);

  const Checkpoint& checkpoint_;
  std::set<std::string> known_;
};

// a and b as one, b's rows below a's; a bias where either has one.
Linear stacked(Linear a, Linear b);

// Frequencies and scaling: default, linear, llama3, yarn, longrope. kind: which of several RoPEs
// ("full_attention") config.json's rope_parameters hold; null: there is one.
Result<Rope> read_rope(Reader& reader, const Architecture& a, const char* kind = nullptr);
// base^(−2i / turned), divided by `linear`.
Rope plain_rope(double base, int turned, double linear = 1.0);

}  // namespace kvfs::model
