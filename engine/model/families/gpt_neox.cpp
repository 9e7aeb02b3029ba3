// GPT-NeoX and Pythia: LayerNorm, biases, RoPE on part of a head, attention and feed-forward in
// parallel. Hugging Face keeps Q, K and V head by head in one matrix.
#include "engine/model/families/family.h"
#include "engine/model/families/reader.h"

namespace kvfs::model {
namespace {

// [head][q | k | v][head_width] to [q | k | v][head][head_width]
std::vector<Slice> by_kind(const Slice& fused, int heads, int head_width) {
  std::vector<Slice> out;
  for (int kind = 0; kind < 3; ++kind) {
    for (int head = 0; head < heads; ++head) {
      Slice part = fused;
      part.first = (head * 3 + kind) * head_width;
      part.rows = head_width;
      out.push_back(part);
    }
  }
  return out;
}

Status read_layer(Reader& reader, const Architecture& a, Layer& layer, int i, int ffn_width) {
  const auto layer_norm = [&](const char* hugging_face, const char* gguf) {
    return reader.norm(Norm::Kind::kLayer, {hugging_face, gguf}, i, a.width);
  };
  KVFS_ASSIGN(layer.attn_norm, layer_norm("gpt_neox.layers.#.input_layernorm", "blk.#.attn_norm"));
  KVFS_ASSIGN(layer.ffn_norm,
              layer_norm("gpt_neox.layers.#.post_attention_layernorm", "blk.#.ffn_norm"));
  layer.rope = 0;
  KVFS_ASSIGN(layer.qkv,
              reader.linear({"gpt_neox.layers.#.attention.query_key_value", "blk.#.attn_qkv"}, i,
                            a.width, 3 * a.width, Bias::kIfThere));
  if (!reader.is_gguf()) {
    layer.qkv.weight = by_kind(layer.qkv.weight.front(), a.heads, a.head_width);
    if (!layer.qkv.bias.empty())
      layer.qkv.bias = by_kind(layer.qkv.bias.front(), a.heads, a.head_width);
  }
  KVFS_ASSIGN(layer.attn_out,
              reader.linear({"gpt_neox.layers.#.attention.dense", "blk.#.attn_output"}, i, a.width,
                            a.width, Bias::kIfThere));
  FeedForward ffn{.gated = false, .width = ffn_width};
  KVFS_ASSIGN(ffn.activation, reader.activation({"hidden_act", nullptr}, Activation::kGelu));
  KVFS_ASSIGN(ffn.up, reader.linear({"gpt_neox.layers.#.mlp.dense_h_to_4h", "blk.#.ffn_up"}, i,
                                    a.width, ffn_width, Bias::kNeeded));
  KVFS_ASSIGN(ffn.down, reader.linear({"gpt_neox.layers.#.mlp.dense_4h_to_h", "blk.#.ffn_down"}, i,
                                      ffn_width, a.width, Bias::kNeeded));
  layer.experts.push_back(std::move(ffn));
  return {};
}

}  // namespace

Result<Architecture> read_gpt_neox(Reader& reader) {
  KVFS_ASSIGN(Architecture a,
              reader.sizes({.epsilon = {"layer_norm_eps", "attention.layer_norm_epsilon"}}));
  KVFS_TRY(reader.vocabulary(a, {"gpt_neox.embed_in", "token_embd"}, {"embed_out", "output"}));
  KVFS_ASSIGN(a.output_norm, reader.norm(Norm::Kind::kLayer,
                                         {"gpt_neox.final_layer_norm", "output_norm"}, 0, a.width));
  KVFS_ASSIGN(a.parallel,
              reader.fields().flag_or({"use_parallel_residual", "use_parallel_residual"}, true));
  KVFS_ASSIGN(Rope rope, read_rope(reader, a));
  a.ropes = {std::move(rope)};
  KVFS_ASSIGN(const int ffn_width, reader.ffn_width());
  for (int i = 0; i < static_cast<int>(a.layers.size()); ++i) {
    KVFS_TRY(read_layer(reader, a, a.layers[static_cast<std::size_t>(i)], i, ffn_width));
  }
  return a;
}

}  // namespace kvfs::model
