// What most families share: RMSNorm, RoPE, separate or fused projections without much else, gated
// feed-forward. A family's file says which of the differences below it has, and changes the rest.
#pragma once

#include "engine/model/families/reader.h"

namespace kvfs::model {

struct LlamaLike {
  enum class Norms { kBefore, kAfter, kBoth };  // of attention and feed-forward
  enum class QkNorm { kNone, kHead, kRow };

  Norms norms = Norms::kBefore;
  QkNorm qk_norm = QkNorm::kNone;
  bool plus_one = false;  // Hugging Face's norms hold w and mean 1 + w
  bool permuted = false;  // a GGUF's Q and K rows are permuted for interleaved RoPE
  bool fused = false;     // qkv and gate_up lie in one tensor each
  Bias qkv_bias = Bias::kIfThere;
  Key activation_key{"hidden_act", nullptr};
  Activation activation = Activation::kSilu;
};

// All of it but experts, windows and RoPE other than one for all layers.
Result<Architecture> read_llama_like(Reader& reader, const LlamaLike& like);
// In pieces, for families whose layers are not all alike.
Result<Architecture> read_llama_frame(Reader& reader, const LlamaLike& like);
Status read_llama_attention(Reader& reader, const LlamaLike& like, Architecture& a, int index);
Status read_llama_ffn(Reader& reader, const LlamaLike& like, Layer& layer, int index, int width,
                      int ffn_width);

// Experts of one layer, by the names of their three matrices.
struct MixtureNames {
  Name router, gate, up, down;
};
Status read_experts(Reader& reader, const MixtureNames& names, Layer& layer, int index, int width,
                    int ffn_width, int experts);

// Windows by config.json's layer_types where it has them; else by `slides`.
Status set_windows(Reader& reader, Architecture& a, int window, bool (*slides)(int layer));
// The window that a field names, for all layers; without the field none.
Status read_window(Reader& reader, Architecture& a, const Key& key);

}  // namespace kvfs::model
