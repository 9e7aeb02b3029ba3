// Mixtral: a llama with a mixture of experts in every layer. In a GGUF: "llama" with expert_count.
#include "engine/model/families/family.h"
#include "engine/model/families/llama_like.h"

namespace kvfs::model {

Result<Architecture> read_mixtral(Reader& reader) {
  const LlamaLike like{.permuted = true};
  const MixtureNames names{{"model.layers.#.block_sparse_moe.gate", "blk.#.ffn_gate_inp"},
                           {"model.layers.#.block_sparse_moe.experts.@.w1", "blk.#.ffn_gate_exps"},
                           {"model.layers.#.block_sparse_moe.experts.@.w3", "blk.#.ffn_up_exps"},
                           {"model.layers.#.block_sparse_moe.experts.@.w2", "blk.#.ffn_down_exps"}};
  KVFS_ASSIGN(Architecture a, read_llama_frame(reader, like));
  KVFS_ASSIGN(Rope rope, read_rope(reader, a));
  a.ropes = {std::move(rope)};
  KVFS_ASSIGN(const int ffn_width, reader.ffn_width());
  KVFS_ASSIGN(const int experts,
              reader.fields().count({"num_local_experts", "expert_count"}, 1024));
  KVFS_ASSIGN(const int chosen,
              reader.fields().count({"num_experts_per_tok", "expert_used_count"}, experts));
  for (int i = 0; i < static_cast<int>(a.layers.size()); ++i) {
    Layer& layer = a.layers[static_cast<std::size_t>(i)];
    KVFS_TRY(read_llama_attention(reader, like, a, i));
    KVFS_TRY(read_experts(reader, names, layer, i, a.width, ffn_width, experts));
    layer.experts_chosen = chosen;
    layer.weights_renormalized = true;
  }
  KVFS_TRY(read_window(reader, a, {"sliding_window", nullptr}));
  return a;
}

}  // namespace kvfs::model
