// A decoder, described: what the forward pass executes, whatever family it is of. A family's file
// (families/) reads its hyper-parameters and tensors into this; nothing below knows a family's
// name.
//
// Plain data, checked in full by who made it: sizes, shapes and kinds can be trusted. Tensors point
// into a Checkpoint and live as long. Immutable, any thread.
//
//   x = embedding[token] · embedding_scale (+ positions[pos])
//   each layer:  x += attn_post(out(attend(rope(q_norm(qkv(attn_norm(x)))))))
//                or, of a convolution, x += attn_post(out(C · convolve(B · z))), B, C, z = in(…)
//                x += ffn_post(ffn(ffn_norm(x)))        (parallel: both read the x before the
//                layer)
//   logits = cap(output(output_norm(x)))
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "codec/base/kv.h"
#include "engine/model/activation.h"
#include "engine/model/checkpoint.h"

namespace kvfs::model {

// The row of a GGUF's wq or wk of the llama family that holds row `row` of transformers' layout, in
// which RoPE turns the pairs (i, i + head_width / 2).
constexpr int unpermuted_row(int row, int head_width) {
  const int head = row / head_width;
  const int in_head = row % head_width;
  const int half = head_width / 2;
  return head * head_width + 2 * (in_head % half) + in_head / half;
}

// Rows of a matrix [outputs, inputs] or of a bias [outputs], as the file has them.
struct Slice {
  const Tensor* tensor = nullptr;  // null: zeros (a part without bias beside parts that have one)
  int first = 0;                   // the file's row of row 0
  int rows = 0;
  int permuted_head_width = 0;  // 0: rows as they are; else taken by unpermuted_row()
  bool transposed = false;      // stored [inputs, outputs] (GPT-2's Conv1D); plain kinds only
};

// y = W · x + b. Slices stand one below the other.
struct Linear {
  int inputs = 0;
  std::vector<Slice> weight;  // empty: there is none
  std::vector<Slice> bias;    // empty: none
  int outputs() const;
};

struct Norm {
  enum class Kind { kNone, kRms, kLayer } kind = Kind::kNone;
  int length = 0;                  // elements normalised together
  const Tensor* weight = nullptr;  // [length]
  const Tensor* bias = nullptr;    // [length]; null: none
  bool plus_one = false;           // the file has w, 1 + w is meant (Gemma)
};

// Pairs (i, i + n) of a head's first 2·n dimensions turn by position · frequencies[i] radians.
struct Rope {
  double base = 10000.0;
  std::vector<float> frequencies;
  // LongRoPE's second set, for positions from `late_from` on (empty: one set for all). transformers
  // turns the whole history anew when it grows past that; here a key's angle depends on its
  // position alone, as it must where keys are shared and kept.
  std::vector<float> late_frequencies;
  Position late_from = 0;
  float magnitude = 1.0F;  // cosines and sines are multiplied by it (YaRN, LongRoPE)
};

struct FeedForward {
  Activation activation = Activation::kSilu;
  bool gated = true;  // up is [gate | up]: activation(gate) · up; else activation(up)
  int width = 0;      // inputs of down
  Linear up;
  Linear down;
};

// A gated short convolution, a channel at a time: y[t] = C[t] · (bias + Σ_k taps[k] · (B · z)[t − K
// + 1 + k]), and zeros before the first position. transformers: modeling_lfm2.py, Lfm2ShortConv.
struct Convolution {
  static constexpr int kMostTaps = 64;  // no further back than the block before
  int taps = 0;                         // K
  const Tensor* weight = nullptr;       // width rows of K, the newest last
  const Tensor* bias = nullptr;         // [width]; null: none
  Linear in;                            // [B | C | z]: [3 · width, width]
  Linear out;
};

struct Layer {
  // In place of attention: qkv … attn_out are empty then.
  std::optional<Convolution> convolution;
  Norm attn_norm;
  Linear qkv;               // [heads · head_width | kv_heads · head_width | the same]
  Norm q_norm, k_norm;      // of each head, or of all heads' row, by their length; before RoPE
  std::optional<int> rope;  // in Architecture::ropes; nothing: the layer turns nothing
  // Keys a token sees, itself included; 0: all. KV outside of it stays in the pages for now;
  // attention does not look at it.
  int window = 0;
  Linear attn_out;
  Norm attn_post;

  Norm ffn_norm;
  std::vector<FeedForward> experts;  // one, unless there is a router
  Linear router;                     // [experts, width]
  int experts_chosen = 0;
  bool weights_renormalized = false;  // the chosen experts' shares are made to sum to 1
  Norm ffn_post;
};

struct Architecture {
  std::string family;  // "llama"
  int width = 0;       // of the residual stream
  int heads = 0;
  int kv_heads = 0;
  int head_width = 0;  // of a query, key and value head
  int vocab = 0;
  int context = 0;  // tokens
  float epsilon = 1e-5F;
  float embedding_scale = 1.0F;
  float attention_scale = 0.0F;  // of scores; 1/√head_width in most families
  float score_cap = 0.0F;        // score → cap · tanh(score / cap); 0: none
  float logit_cap = 0.0F;
  bool parallel = false;  // attention and FFN read the same x

  const Tensor* embedding = nullptr;  // [vocab, width]
  const Tensor* positions = nullptr;  // [≥ context, width], learned; null: none
  std::vector<Rope> ropes;
  std::vector<Layer> layers;
  Norm output_norm;
  Linear output;  // [vocab, width]; of the embedding when tied

  bool tied() const { return output.weight.front().tensor == embedding; }
  int q_width() const { return heads * head_width; }
  int kv_width() const { return kv_heads * head_width; }
  LayerShape layer_shape(const Layer& layer) const;
};

// Whether its matrices are fp16 ones, but for some of fp32 perhaps.
bool is_fp16(const Architecture& architecture);

// What keeps an architecture from being a plain llama (kernels that know no other ask this);
// nothing: it is one.
std::optional<std::string> unlike_llama(const Architecture& architecture);

}  // namespace kvfs::model
