#include "engine/model/architecture.h"

#include <cmath>

namespace kvfs::model {

int Linear::outputs() const {
  int total = 0;
  for (const Slice& slice : weight) total += slice.rows;
  return total;
}

LayerShape Architecture::layer_shape(const Layer& layer) const {
  if (layer.convolution) {
    // One more than the next token needs, so that the last token can be taken back.
    return {.kv_heads = 1,
            .key_width = static_cast<std::uint16_t>(width),
            .value_width = 0,
            .kind = LayerKind::kConvolution,
            .kept = static_cast<std::uint16_t>(layer.convolution->taps)};
  }
  return {.kv_heads = static_cast<std::uint16_t>(kv_heads),
          .key_width = static_cast<std::uint16_t>(head_width),
          .value_width = static_cast<std::uint16_t>(head_width)};
}

bool is_fp16(const Architecture& a) {
  bool some = false;
  bool others = false;
  const auto look = [&](const Linear& linear) {
    for (const Slice& slice : linear.weight) {
      const bool fp16 = slice.tensor->type == container::GgmlType::kF16;
      some = some || fp16;
      others = others || (!fp16 && slice.tensor->type != container::GgmlType::kF32);
    }
  };
  look({.inputs = a.width, .weight = {{.tensor = a.embedding, .rows = a.vocab}}, .bias = {}});
  look(a.output);
  for (const Layer& layer : a.layers) {
    look(layer.qkv);
    look(layer.attn_out);
    look(layer.router);
    if (layer.convolution) {
      look(layer.convolution->in);
      look(layer.convolution->out);
    }
    for (const FeedForward& ffn : layer.experts) {
      look(ffn.up);
      look(ffn.down);
    }
  }
  return some && !others;
}

std::optional<std::string> unlike_llama(const Architecture& a) {
  if (a.embedding_scale != 1.0F || a.positions != nullptr) return "its embedding is more than that";
  if (a.score_cap != 0.0F || a.logit_cap != 0.0F) return "it caps scores or logits";
  if (a.parallel) return "attention and feed-forward run in parallel";
  if (a.attention_scale != 1.0F / std::sqrt(static_cast<float>(a.head_width)))
    return "its attention has a scale of its own";
  if (a.ropes.size() != 1 || !a.ropes[0].late_frequencies.empty() || a.ropes[0].magnitude != 1.0F ||
      static_cast<int>(a.ropes[0].frequencies.size()) * 2 != a.head_width) {
    return "its RoPE is not one set of frequencies for whole heads";
  }
  const auto plain_norm = [](const Norm& norm) {
    return norm.kind == Norm::Kind::kRms && !norm.plus_one;
  };
  if (!plain_norm(a.output_norm) || !a.output.bias.empty()) return "its output differs";
  for (const Layer& layer : a.layers) {
    if (layer.convolution) return "some layers are short convolutions";
    if (!plain_norm(layer.attn_norm) || !plain_norm(layer.ffn_norm) ||
        layer.attn_post.kind != Norm::Kind::kNone || layer.ffn_post.kind != Norm::Kind::kNone ||
        layer.q_norm.kind != Norm::Kind::kNone || layer.k_norm.kind != Norm::Kind::kNone) {
      return "its norms differ";
    }
    if (!layer.qkv.bias.empty() || !layer.attn_out.bias.empty()) return "it has biases";
    if (!layer.rope) return "some layers have no RoPE";
    if (layer.window != 0) return "attention has a sliding window";
    if (!layer.router.weight.empty()) return "it is a mixture of experts";
    const FeedForward& ffn = layer.experts.front();
    if (!ffn.gated || ffn.activation != Activation::kSilu || !ffn.up.bias.empty() ||
        !ffn.down.bias.empty() || ffn.width != a.layers.front().experts.front().width) {
      return "its feed-forward differs";
    }
  }
  return std::nullopt;
}

}  // namespace kvfs::model
