#include "engine/model/families/llama_like.h"

namespace kvfs::model {
namespace {

using Norms = LlamaLike::Norms;
using QkNorm = LlamaLike::QkNorm;

Result<Norm> rms(Reader& reader, const LlamaLike& like, Name name, int layer, int length) {
  KVFS_ASSIGN(Norm norm, reader.norm(Norm::Kind::kRms, name, layer, length));
  norm.plus_one = like.plus_one && !reader.is_gguf();  // a GGUF's already hold the sum
  return norm;
}

Status read_norms(Reader& reader, const LlamaLike& like, const Architecture& a, Layer& layer,
                  int i) {
  const int width = a.width;
  if (like.norms != Norms::kAfter) {
    const Name before_ffn{like.norms == Norms::kBoth ? "model.layers.#.pre_feedforward_layernorm"
                                                     : "model.layers.#.post_attention_layernorm",
                          "blk.#.ffn_norm"};
    KVFS_ASSIGN(layer.attn_norm,
                rms(reader, like, {"model.layers.#.input_layernorm", "blk.#.attn_norm"}, i, width));
    KVFS_ASSIGN(layer.ffn_norm, rms(reader, like, before_ffn, i, width));
  }
  if (like.norms != Norms::kBefore) {
    const Name after_attention{"model.layers.#.post_attention_layernorm",
                               "blk.#.post_attention_norm"};
    const Name after_ffn{"model.layers.#.post_feedforward_layernorm", "blk.#.post_ffw_norm"};
    KVFS_ASSIGN(layer.attn_post, rms(reader, like, after_attention, i, width));
    KVFS_ASSIGN(layer.ffn_post, rms(reader, like, after_ffn, i, width));
  }
  if (like.qk_norm != QkNorm::kNone) {
    const bool row = like.qk_norm == QkNorm::kRow;
    KVFS_ASSIGN(layer.q_norm,
                rms(reader, like, {"model.layers.#.self_attn.q_norm", "blk.#.attn_q_norm"}, i,
                    row ? a.q_width() : a.head_width));
    KVFS_ASSIGN(layer.k_norm,
                rms(reader, like, {"model.layers.#.self_attn.k_norm", "blk.#.attn_k_norm"}, i,
                    row ? a.kv_width() : a.head_width));
  }
  return {};
}

}  // namespace

Status read_llama_attention(Reader& reader, const LlamaLike& like, Architecture& a, int index) {
  Layer& layer = a.layers[static_cast<std::size_t>(index)];
  KVFS_TRY(read_norms(reader, like, a, layer, index));
  layer.rope = 0;
  const int q = a.q_width();
  const int kv = a.kv_width();
  if (like.fused) {
    KVFS_ASSIGN(layer.qkv, reader.linear({"model.layers.#.self_attn.qkv_proj", "blk.#.attn_qkv"},
                                         index, a.width, q + 2 * kv, like.qkv_bias));
  } else {
    const auto part = [&](const char* hugging_face, const char* gguf, int outputs, bool turns) {
      auto made = reader.linear({hugging_face, gguf}, index, a.width, outputs, like.qkv_bias);
      if (made && turns && like.permuted && reader.is_gguf()) {
        for (auto* slices : {&made->weight, &made->bias}) {
          for (Slice& slice : *slices) slice.permuted_head_width = a.head_width;
        }
      }
      return made;
    };
    KVFS_ASSIGN(Linear wq, part("model.layers.#.self_attn.q_proj", "blk.#.attn_q", q, true));
    KVFS_ASSIGN(Linear wk, part("model.layers.#.self_attn.k_proj", "blk.#.attn_k", kv, true));
    KVFS_ASSIGN(Linear wv, part("model.layers.#.self_attn.v_proj", "blk.#.attn_v", kv, false));
    layer.qkv = stacked(stacked(std::move(wq), std::move(wk)), std::move(wv));
  }
  KVFS_ASSIGN(layer.attn_out,
              reader.linear({"model.layers.#.self_attn.o_proj", "blk.#.attn_output"}, index, q,
                            a.width, Bias::kIfThere));
  return {};
}

Status read_llama_ffn(Reader& reader, const LlamaLike& like, Layer& layer, int index, int width,
                      int ffn_width) {
  FeedForward ffn{.width = ffn_width};
  KVFS_ASSIGN(ffn.activation, reader.activation(like.activation_key, like.activation));
  if (like.fused) {
    KVFS_ASSIGN(ffn.up, reader.linear({"model.layers.#.mlp.gate_up_proj", "blk.#.ffn_up"}, index,
                                      width, 2 * ffn_width));
  } else {
    KVFS_ASSIGN(Linear gate, reader.linear({"model.layers.#.mlp.gate_proj", "blk.#.ffn_gate"},
                                           index, width, ffn_width, Bias::kIfThere));
    KVFS_ASSIGN(Linear up, reader.linear({"model.layers.#.mlp.up_proj", "blk.#.ffn_up"}, index,
                                         width, ffn_width, Bias::kIfThere));
    ffn.up = stacked(std::move(gate), std::move(up));
  }
  KVFS_ASSIGN(ffn.down, reader.linear({"model.layers.#.mlp.down_proj", "blk.#.ffn_down"}, index,
                                      ffn_width, width, Bias::kIfThere));
  layer.experts.push_back(std::move(ffn));
  return {};
}

Result<Architecture> read_llama_frame(Reader& reader, const LlamaLike& like) {
  KVFS_ASSIGN(Architecture a, reader.sizes());
  KVFS_TRY(reader.vocabulary(a, {"model.embed_tokens", "token_embd"}, {"lm_head", "output"}));
  KVFS_ASSIGN(a.output_norm, rms(reader, like, {"model.norm", "output_norm"}, 0, a.width));
  return a;
}

Result<Architecture> read_llama_like(Reader& reader, const LlamaLike& like) {
  KVFS_ASSIGN(Architecture a, read_llama_frame(reader, like));
  KVFS_ASSIGN(Rope rope, read_rope(reader, a));
  a.ropes = {std::move(rope)};
  KVFS_ASSIGN(const int ffn_width, reader.ffn_width());
  for (int i = 0; i < static_cast<int>(a.layers.size()); ++i) {
    KVFS_TRY(read_llama_attention(reader, like, a, i));
    KVFS_TRY(
        read_llama_ffn(reader, like, a.layers[static_cast<std::size_t>(i)], i, a.width, ffn_width));
  }
  return a;
}

Status read_experts(Reader& reader, const MixtureNames& names, Layer& layer, int index, int width,
                    int ffn_width, int experts) {
  KVFS_ASSIGN(layer.router, reader.linear(names.router, index, width, experts));
  // A GGUF keeps the experts of a layer in one tensor, one below the other.
  const auto part = [&](Name name, int expert, int inputs, int outputs) -> Result<Linear> {
    const std::string full = reader.full_name(name, index, expert) + ".weight";
    const bool gguf = reader.is_gguf();
    KVFS_ASSIGN(const Tensor* tensor, reader.matrix(full, inputs, outputs, gguf ? experts : 0));
    return Linear{
        .inputs = inputs,
        .weight = {{.tensor = tensor, .first = gguf ? expert * outputs : 0, .rows = outputs}}};
  };
  for (int e = 0; e < experts; ++e) {
    KVFS_ASSIGN(Linear gate, part(names.gate, e, width, ffn_width));
    KVFS_ASSIGN(Linear up, part(names.up, e, width, ffn_width));
    KVFS_ASSIGN(Linear down, part(names.down, e, ffn_width, width));
    layer.experts.push_back({.width = ffn_width,
                             .up = stacked(std::move(gate), std::move(up)),
                             .down = std::move(down)});
  }
  return {};
}

Status read_window(Reader& reader, Architecture& a, const Key& key) {
  if (!reader.fields().has(key)) return {};
  KVFS_ASSIGN(const int keys, reader.fields().count(key));
  return set_windows(reader, a, keys, [](int) { return true; });
}

Status set_windows(Reader& reader, Architecture& a, int window, bool (*slides)(int layer)) {
  const Key types{"layer_types", nullptr};
  std::vector<std::string> listed;
  if (reader.fields().has(types)) {
    KVFS_ASSIGN(listed, reader.fields().texts(types));
    if (listed.size() != a.layers.size()) {
      return reader.fields().refuse(ErrorCode::kInvalid, types,
                                    "has " + std::to_string(listed.size()) + " layers, wanted " +
                                        std::to_string(a.layers.size()));
    }
  }
  for (std::size_t i = 0; i < a.layers.size(); ++i) {
    if (!listed.empty() && listed[i] != "sliding_attention" && listed[i] != "full_attention") {
      return reader.fields().refuse(
          ErrorCode::kUnsupported, types,
          "has '" + listed[i] + "', known: full_attention, sliding_attention");
    }
    const bool sliding =
        listed.empty() ? slides(static_cast<int>(i)) : listed[i] == "sliding_attention";
    if (sliding) a.layers[i].window = window;
  }
  return {};
}

}  // namespace kvfs::model
