// Qwen 2 and 2.5: a llama with biases on Q, K and V. Qwen 3: none, but Q and K are normalised head
// by head; its mixture of experts beside.
#include <algorithm>

#include "engine/model/families/family.h"
#include "engine/model/families/llama_like.h"

namespace kvfs::model {
namespace {

constexpr LlamaLike kQwen3{.qk_norm = LlamaLike::QkNorm::kHead};

// The layers from max_window_layers on may have a window; published models leave it off.
Status read_windows(Reader& reader, Architecture& a) {
  const Fields& f = reader.fields();
  KVFS_ASSIGN(const bool sliding, f.flag_or({"use_sliding_window", nullptr}, false));
  const Key window{"sliding_window", nullptr};
  if (!sliding || !f.has(window)) return {};
  KVFS_ASSIGN(const int keys, f.count(window));
  if (f.has({"layer_types", nullptr}))
    return set_windows(reader, a, keys, [](int) { return false; });
  // 0 is a value of its own: all of them.
  KVFS_ASSIGN(const double first, f.real_or({"max_window_layers", nullptr}, 28.0, 0.0, 1e4));
  for (std::size_t i = 0; i < a.layers.size(); ++i) {
    if (static_cast<double>(i) >= first) a.layers[i].window = keys;
  }
  return {};
}

}  // namespace

Result<Architecture> read_qwen2(Reader& reader) {
  KVFS_ASSIGN(Architecture a, read_llama_like(reader, {.qkv_bias = Bias::kIfThere}));
  KVFS_TRY(read_windows(reader, a));
  return a;
}

Result<Architecture> read_qwen3(Reader& reader) {
  KVFS_ASSIGN(Architecture a, read_llama_like(reader, kQwen3));
  KVFS_TRY(read_windows(reader, a));
  return a;
}

Result<Architecture> read_qwen3_moe(Reader& reader) {
  const MixtureNames names{{"model.layers.#.mlp.gate", "blk.#.ffn_gate_inp"},
                           {"model.layers.#.mlp.experts.@.gate_proj", "blk.#.ffn_gate_exps"},
                           {"model.layers.#.mlp.experts.@.up_proj", "blk.#.ffn_up_exps"},
                           {"model.layers.#.mlp.experts.@.down_proj", "blk.#.ffn_down_exps"}};
  const Fields& f = reader.fields();
  KVFS_ASSIGN(Architecture a, read_llama_frame(reader, kQwen3));
  KVFS_ASSIGN(Rope rope, read_rope(reader, a));
  a.ropes = {std::move(rope)};
  KVFS_ASSIGN(const int expert_width,
              reader.ffn_width({"moe_intermediate_size", "expert_feed_forward_length"}));
  const Key experts_key{f.has({"num_experts", nullptr}) ? "num_experts" : "num_local_experts",
                        "expert_count"};
  KVFS_ASSIGN(const int experts, f.count(experts_key, 1024));
  KVFS_ASSIGN(const int chosen, f.count({"num_experts_per_tok", "expert_used_count"}, experts));
  // No GGUF field: the published models all set it.
  KVFS_ASSIGN(const bool renormalized, f.flag_or({"norm_topk_prob", nullptr}, reader.is_gguf()));
  KVFS_ASSIGN(const int step, f.count_or({"decoder_sparse_step", nullptr}, 1));
  std::vector<double> dense;
  if (f.has({"mlp_only_layers", nullptr})) {
    KVFS_ASSIGN(dense, f.reals({"mlp_only_layers", nullptr}, 0.0, 1e4));
  }
  for (int i = 0; i < static_cast<int>(a.layers.size()); ++i) {
    Layer& layer = a.layers[static_cast<std::size_t>(i)];
    KVFS_TRY(read_llama_attention(reader, kQwen3, a, i));
    if (std::ranges::find(dense, static_cast<double>(i)) != dense.end() || (i + 1) % step != 0) {
      KVFS_ASSIGN(const int ffn_width, reader.ffn_width());
      KVFS_TRY(read_llama_ffn(reader, kQwen3, layer, i, a.width, ffn_width));
      continue;
    }
    KVFS_TRY(read_experts(reader, names, layer, i, a.width, expert_width, experts));
    layer.experts_chosen = chosen;
    layer.weights_renormalized = renormalized;
  }
  KVFS_TRY(read_windows(reader, a));
  return a;
}

}  // namespace kvfs::model
