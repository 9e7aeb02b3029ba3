// GPT-2: learned positions, LayerNorm, biases, a plain feed-forward. Hugging Face keeps its
// matrices transposed (Conv1D), with or without "transformer." in front.
#include "engine/model/families/family.h"
#include "engine/model/families/reader.h"

namespace kvfs::model {
namespace {

class Gpt2 {
 public:
  explicit Gpt2(Reader& reader)
      : reader_(reader),
        prefix_(reader.checkpoint().find("transformer.wte.weight") != nullptr ? "transformer."
                                                                              : "") {}

  Result<Architecture> read() {
    KVFS_ASSIGN(Architecture a,
                reader_.sizes({.layers = {"n_layer", "block_count"},
                               .context = {"n_positions", "context_length"},
                               .width = {"n_embd", "embedding_length"},
                               .heads = {"n_head", "attention.head_count"},
                               .epsilon = {"layer_norm_epsilon", "attention.layer_norm_epsilon"}}));
    KVFS_TRY(
        reader_.vocabulary(a, {(prefix_ + "wte").c_str(), "token_embd"}, {"lm_head", "output"}));
    KVFS_ASSIGN(a.positions,
                reader_.matrix(name("wpe", "position_embd") + ".weight", a.width, a.context));
    KVFS_ASSIGN(a.output_norm, norm("ln_f", "output_norm", 0, a.width));
    const Key inner{"n_inner", "feed_forward_length"};
    int ffn_width = 4 * a.width;
    if (reader_.fields().has(inner)) {
      KVFS_ASSIGN(ffn_width, reader_.ffn_width(inner));
    }
    for (int i = 0; i < static_cast<int>(a.layers.size()); ++i) {
      KVFS_TRY(read_layer(a, a.layers[static_cast<std::size_t>(i)], i, ffn_width));
    }
    return a;
  }

 private:
  Status read_layer(const Architecture& a, Layer& layer, int i, int ffn_width) {
    const int width = a.width;
    KVFS_ASSIGN(layer.attn_norm, norm("h.#.ln_1", "blk.#.attn_norm", i, width));
    KVFS_ASSIGN(layer.qkv, linear("h.#.attn.c_attn", "blk.#.attn_qkv", i, width, 3 * width));
    KVFS_ASSIGN(layer.attn_out, linear("h.#.attn.c_proj", "blk.#.attn_output", i, width, width));
    KVFS_ASSIGN(layer.ffn_norm, norm("h.#.ln_2", "blk.#.ffn_norm", i, width));
    FeedForward ffn{.gated = false, .width = ffn_width};
    KVFS_ASSIGN(ffn.activation,
                reader_.activation({"activation_function", nullptr}, Activation::kGeluTanh));
    KVFS_ASSIGN(ffn.up, linear("h.#.mlp.c_fc", "blk.#.ffn_up", i, width, ffn_width));
    KVFS_ASSIGN(ffn.down, linear("h.#.mlp.c_proj", "blk.#.ffn_down", i, ffn_width, width));
    layer.experts.push_back(std::move(ffn));
    return {};
  }

  std::string name(const std::string& hugging_face, const char* gguf, int layer = 0) const {
    return reader_.full_name({(prefix_ + hugging_face).c_str(), gguf}, layer);
  }
  Result<Norm> norm(const std::string& hugging_face, const char* gguf, int layer, int width) {
    return reader_.norm(Norm::Kind::kLayer, {(prefix_ + hugging_face).c_str(), gguf}, layer, width);
  }
  Result<Linear> linear(const std::string& hugging_face, const char* gguf, int layer, int inputs,
                        int outputs) {
    const bool transposed = !reader_.is_gguf();
    const std::string base = name(hugging_face, gguf, layer);
    Linear made{.inputs = inputs};
    KVFS_ASSIGN(const Tensor* weight,
                reader_.matrix(base + ".weight", transposed ? outputs : inputs,
                               transposed ? inputs : outputs));
    KVFS_ASSIGN(const Tensor* bias, reader_.vector(base + ".bias", outputs));
    made.weight = {{.tensor = weight, .rows = outputs, .transposed = transposed}};
    made.bias = {{.tensor = bias, .rows = outputs}};
    return made;
  }

  Reader& reader_;
  std::string prefix_;
};

}  // namespace

Result<Architecture> read_gpt2(Reader& reader) {
  for (const char* odd : {"scale_attn_by_inverse_layer_idx", "add_cross_attention"}) {
    KVFS_ASSIGN(const bool set, reader.fields().flag_or({odd, nullptr}, false));
    if (set) return reader.fields().refuse(ErrorCode::kUnsupported, {odd, nullptr}, "is set");
  }
  return Gpt2(reader).read();
}

}  // namespace kvfs::model
