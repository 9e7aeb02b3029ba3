// LFM2: short convolutions in most layers, attention in the rest; Q and K normalised head by head,
// norms before, a norm of the embedding's name at the end.
#include <algorithm>
#include <limits>

#include "engine/model/families/family.h"
#include "engine/model/families/llama_like.h"

namespace kvfs::model {
namespace {

constexpr double kUsualBase = 1e6;  // RoPE's, where config.json has none

// Which layers convolve: by config.json's layer_types or full_attn_idxs, or by a GGUF's KV heads,
// none in these. a.kv_heads is set by the latter.
Result<std::vector<bool>> read_kinds(Reader& reader, Architecture& a) {
  const Fields& f = reader.fields();
  const std::size_t layers = a.layers.size();
  const auto wrong_length = [&](Key key, std::size_t length) {
    return f.refuse(ErrorCode::kInvalid, key,
                    "has " + std::to_string(length) + " layers, wanted " + std::to_string(layers));
  };
  std::vector<bool> convolves(layers, false);
  const Key types{"layer_types", nullptr};
  const Key attending{"full_attn_idxs", nullptr};
  const Key kv_heads{nullptr, "attention.head_count_kv"};
  if (f.has(types)) {
    KVFS_ASSIGN(const auto listed, f.texts(types));
    if (listed.size() != layers) return wrong_length(types, listed.size());
    for (std::size_t i = 0; i < layers; ++i) {
      if (listed[i] != "conv" && listed[i] != "full_attention") {
        return f.refuse(ErrorCode::kUnsupported, types,
                        "has '" + listed[i] + "', known: full_attention, conv");
      }
      convolves[i] = listed[i] == "conv";
    }
  } else if (f.has(attending)) {
    KVFS_ASSIGN(const auto listed, f.reals(attending, 0.0, static_cast<double>(layers) - 1.0));
    convolves.assign(layers, true);
    for (const double index : listed) convolves[static_cast<std::size_t>(index)] = false;
  } else if (f.has(kv_heads)) {
    KVFS_ASSIGN(const auto listed, f.reals(kv_heads, 0.0, a.heads));
    if (listed.size() != layers) return wrong_length(kv_heads, listed.size());
    a.kv_heads = std::max(1, static_cast<int>(*std::ranges::max_element(listed)));
    for (std::size_t i = 0; i < layers; ++i) {
      convolves[i] = listed[i] == 0.0;
      if ((!convolves[i] && listed[i] != a.kv_heads) || a.heads % a.kv_heads != 0) {
        return f.refuse(ErrorCode::kUnsupported, kv_heads,
                        "is neither 0 nor one number that divides the heads in every layer");
      }
    }
  }
  if (std::ranges::find(convolves, false) == convolves.end())
    return reader.unsupported("none of its layers attends");
  return convolves;
}

// transformers' Lfm2MLP works the width out of the field's; a GGUF has it as it is.
Result<int> read_ffn_width(Reader& reader) {
  const Fields& f = reader.fields();
  const Key older{"block_ff_dim", nullptr};
  const Key key = f.has(older) ? older : Key{"intermediate_size", "feed_forward_length"};
  KVFS_ASSIGN(const bool adjusted,
              f.flag_or({"block_auto_adjust_ff_dim", nullptr}, !reader.is_gguf()));
  if (!adjusted) return reader.ffn_width(key);
  KVFS_ASSIGN(const int width, f.count(key));
  KVFS_ASSIGN(const double factor,
              f.real_or({"block_ffn_dim_multiplier", nullptr}, 1.0, 1e-3, 1e3));
  KVFS_ASSIGN(const int unit, f.count_or({"block_multiple_of", nullptr}, 256, 1 << 16));
  const auto wanted = static_cast<std::int64_t>(factor * static_cast<int>(2.0 * width / 3.0));
  const std::int64_t rounded = (wanted + unit - 1) / unit * unit;
  if (rounded % 32 != 0 || rounded == 0 || rounded > Fields::kMostCount) {
    return reader.unsupported(f.name(key) + " " + std::to_string(width) + " gives a width of " +
                              std::to_string(rounded) + ", no multiple of 32");
  }
  return static_cast<int>(rounded);
}

Status read_attention(Reader& reader, const Architecture& a, Layer& layer, int i) {
  layer.rope = 0;
  const auto part = [&](const char* hugging_face, const char* gguf, int outputs) {
    return reader.linear({hugging_face, gguf}, i, a.width, outputs);
  };
  KVFS_ASSIGN(Linear wq, part("model.layers.#.self_attn.q_proj", "blk.#.attn_q", a.q_width()));
  KVFS_ASSIGN(Linear wk, part("model.layers.#.self_attn.k_proj", "blk.#.attn_k", a.kv_width()));
  KVFS_ASSIGN(Linear wv, part("model.layers.#.self_attn.v_proj", "blk.#.attn_v", a.kv_width()));
  layer.qkv = stacked(stacked(std::move(wq), std::move(wk)), std::move(wv));
  KVFS_ASSIGN(
      layer.q_norm,
      reader.norm(Norm::Kind::kRms, {"model.layers.#.self_attn.q_layernorm", "blk.#.attn_q_norm"},
                  i, a.head_width));
  KVFS_ASSIGN(
      layer.k_norm,
      reader.norm(Norm::Kind::kRms, {"model.layers.#.self_attn.k_layernorm", "blk.#.attn_k_norm"},
                  i, a.head_width));
  KVFS_ASSIGN(layer.attn_out,
              reader.linear({"model.layers.#.self_attn.out_proj", "blk.#.attn_output"}, i,
                            a.q_width(), a.width));
  return {};
}

Status read_convolution(Reader& reader, const Architecture& a, Layer& layer, int i) {
  const Fields& f = reader.fields();
  Convolution made;
  KVFS_ASSIGN(made.taps, f.count({"conv_L_cache", "shortconv.l_cache"}, Convolution::kMostTaps));
  KVFS_ASSIGN(const bool biased, f.flag_or({"conv_bias", nullptr}, false));
  const Bias bias = biased ? Bias::kNeeded : Bias::kNone;
  const std::string name =
      reader.full_name({"model.layers.#.conv.conv", "blk.#.shortconv.conv"}, i);
  KVFS_ASSIGN(made.weight, reader.taps(name + ".weight", a.width, made.taps));
  if (biased) {
    KVFS_ASSIGN(made.bias, reader.vector(name + ".bias", a.width));
  }
  KVFS_ASSIGN(made.in, reader.linear({"model.layers.#.conv.in_proj", "blk.#.shortconv.in_proj"}, i,
                                     a.width, 3 * a.width, bias));
  KVFS_ASSIGN(made.out, reader.linear({"model.layers.#.conv.out_proj", "blk.#.shortconv.out_proj"},
                                      i, a.width, a.width, bias));
  layer.convolution = std::move(made);
  return {};
}

Status read_ffn(Reader& reader, const Architecture& a, Layer& layer, int i, int ffn_width) {
  FeedForward ffn{.width = ffn_width};
  KVFS_ASSIGN(Linear gate, reader.linear({"model.layers.#.feed_forward.w1", "blk.#.ffn_gate"}, i,
                                         a.width, ffn_width));
  KVFS_ASSIGN(Linear up, reader.linear({"model.layers.#.feed_forward.w3", "blk.#.ffn_up"}, i,
                                       a.width, ffn_width));
  ffn.up = stacked(std::move(gate), std::move(up));
  KVFS_ASSIGN(ffn.down, reader.linear({"model.layers.#.feed_forward.w2", "blk.#.ffn_down"}, i,
                                      ffn_width, a.width));
  layer.experts.push_back(std::move(ffn));
  return {};
}

}  // namespace

Result<Architecture> read_lfm2(Reader& reader) {
  const Fields& f = reader.fields();
  KVFS_ASSIGN(Architecture a,
              reader.sizes({.kv_heads = {"num_key_value_heads", nullptr},
                            .epsilon = {"norm_eps", "attention.layer_norm_rms_epsilon"}}));
  if (a.width > std::numeric_limits<std::uint16_t>::max())
    return reader.unsupported("its layers have " + std::to_string(a.width) + " channels");
  const Key window{nullptr, "attention.sliding_window"};
  if (f.has(window)) return f.refuse(ErrorCode::kUnsupported, window, "is not known here");
  KVFS_ASSIGN(const std::vector<bool> convolves, read_kinds(reader, a));
  KVFS_TRY(reader.vocabulary(a, {"model.embed_tokens", "token_embd"}, {"lm_head", "output"}));
  KVFS_ASSIGN(a.output_norm, reader.norm(Norm::Kind::kRms,
                                         {"model.embedding_norm", "token_embd_norm"}, 0, a.width));
  const bool has_base = reader.is_gguf() || f.has({"rope_theta", nullptr}) ||
                        f.has({"rope_parameters", nullptr}) || f.has({"rope_scaling", nullptr});
  a.ropes = {plain_rope(kUsualBase, a.head_width)};
  if (has_base) {
    KVFS_ASSIGN(a.ropes.front(), read_rope(reader, a));
  }
  KVFS_ASSIGN(const int ffn_width, read_ffn_width(reader));
  for (std::size_t i = 0; i < a.layers.size(); ++i) {
    const int index = static_cast<int>(i);
    Layer& layer = a.layers[i];
    KVFS_ASSIGN(layer.attn_norm,
                reader.norm(Norm::Kind::kRms, {"model.layers.#.operator_norm", "blk.#.attn_norm"},
                            index, a.width));
    KVFS_ASSIGN(layer.ffn_norm,
                reader.norm(Norm::Kind::kRms, {"model.layers.#.ffn_norm", "blk.#.ffn_norm"}, index,
                            a.width));
    KVFS_TRY(convolves[i] ? read_convolution(reader, a, layer, index)
                          : read_attention(reader, a, layer, index));
    KVFS_TRY(read_ffn(reader, a, layer, index, ffn_width));
  }
  return a;
}

}  // namespace kvfs::model
