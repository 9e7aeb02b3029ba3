// Gemma 2: norms before and after, 1 + w, GELU, capped scores and logits, a window in every other
// layer. Gemma 3: Q and K normalised, five windows to one full layer, a RoPE for each, no caps.
#include <cmath>

#include "engine/model/families/family.h"
#include "engine/model/families/llama_like.h"

namespace kvfs::model {
namespace {

constexpr Key kWindow{"sliding_window", "attention.sliding_window"};

// config.json has the divisor's square; a GGUF has nothing: llama.cpp knows that the 27B models,
// alone, divide by the width of a head of the stream.
Status read_scale(Reader& reader, Architecture& a, std::size_t layers_of_27b) {
  const Key scalar{"query_pre_attn_scalar", nullptr};
  const double usual = a.layers.size() == layers_of_27b
                           ? static_cast<double>(a.width) / static_cast<double>(a.heads)
                           : static_cast<double>(a.head_width);
  KVFS_ASSIGN(const double divisor, reader.fields().real_or(scalar, usual, 1e-3, 1e6));
  a.attention_scale = 1.0F / std::sqrt(static_cast<float>(divisor));
  a.embedding_scale = std::sqrt(static_cast<float>(a.width));
  return {};
}

Status read_caps(Reader& reader, Architecture& a, double usual_scores, double usual_logits) {
  const Key scores{"attn_logit_softcapping", "attn_logit_softcapping"};
  const Key logits{"final_logit_softcapping", "final_logit_softcapping"};
  const bool gguf = reader.is_gguf();  // a null in config.json means none
  KVFS_ASSIGN(const double score_cap,
              reader.fields().real_or(scores, gguf ? usual_scores : 0.0, 0.0, 1e6));
  KVFS_ASSIGN(const double logit_cap,
              reader.fields().real_or(logits, gguf ? usual_logits : 0.0, 0.0, 1e6));
  a.score_cap = static_cast<float>(score_cap);
  a.logit_cap = static_cast<float>(logit_cap);
  return {};
}

LlamaLike gemma(const Fields& fields, LlamaLike::QkNorm qk_norm) {
  const bool older = !fields.has({"hidden_activation", nullptr});
  return {.norms = LlamaLike::Norms::kBoth,
          .qk_norm = qk_norm,
          .plus_one = true,
          .activation_key = {older ? "hidden_act" : "hidden_activation", nullptr},
          .activation = Activation::kGeluTanh};
}

}  // namespace

Result<Architecture> read_gemma2(Reader& reader) {
  KVFS_ASSIGN(Architecture a,
              read_llama_like(reader, gemma(reader.fields(), LlamaLike::QkNorm::kNone)));
  KVFS_TRY(read_scale(reader, a, 46));
  KVFS_TRY(read_caps(reader, a, 50.0, 30.0));
  KVFS_ASSIGN(const int window, reader.fields().count_or(kWindow, 4096));
  KVFS_TRY(set_windows(reader, a, window, [](int layer) { return layer % 2 == 0; }));
  return a;
}

Result<Architecture> read_gemma3(Reader& reader) {
  const Fields& f = reader.fields();
  const LlamaLike like = gemma(f, LlamaLike::QkNorm::kHead);
  KVFS_ASSIGN(Architecture a, read_llama_like(reader, like));
  KVFS_ASSIGN(a.ropes[0], read_rope(reader, a, "full_attention"));
  KVFS_TRY(read_scale(reader, a, 62));
  KVFS_TRY(read_caps(reader, a, 0.0, 0.0));
  KVFS_ASSIGN(const int window, f.count(kWindow));
  KVFS_TRY(set_windows(reader, a, window, [](int layer) { return (layer + 1) % 6 != 0; }));

  if (f.has({"rope_parameters", nullptr})) {
    KVFS_ASSIGN(Rope local, read_rope(reader, a, "sliding_attention"));
    a.ropes.push_back(std::move(local));
  } else {
    KVFS_ASSIGN(const double base,
                f.real_or({"rope_local_base_freq", "rope.freq_base_swa"}, 10000.0, 1.0, 1e12));
    a.ropes.push_back(plain_rope(base, a.head_width));
  }
  for (Layer& layer : a.layers) layer.rope = layer.window > 0 ? 1 : 0;
  return a;
}

}  // namespace kvfs::model
