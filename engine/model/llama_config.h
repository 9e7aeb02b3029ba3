// The Llama family as a GGUF file describes it: hyper-parameters and the directory of weights, read
// and checked in full, so that what loads them can trust names, shapes and kinds.
//
// Pointers into the directory live as long as the GgufFile. Immutable, any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "codec/base/kv.h"
#include "codec/container/gguf.h"

namespace kvfs::model {

struct LlamaConfig {
  std::string architecture;  // "llama"
  int layers = 0;
  int width = 0;  // of the residual stream (n_embd)
  int heads = 0;
  int kv_heads = 0;
  int head_width = 0;  // of a query, key and value head
  int ffn_width = 0;
  int vocab = 0;
  int context = 0;  // tokens
  float rope_base = 10000.0F;
  float rope_scale = 1.0F;  // linear scaling: positions are divided by it
  float rms_epsilon = 1e-5F;

  LayerShape layer_shape() const;
};

// Matrices are [outputs, inputs] with inputs contiguous (dims = {inputs, outputs}). GGUF keeps the
// rows of wq and wk permuted for interleaved RoPE: see unpermuted_row().
struct LlamaLayerTensors {
  const container::GgufTensor* attn_norm;  // [width] F32
  const container::GgufTensor* wq;         // [heads · head_width, width]
  const container::GgufTensor* wk;         // [kv_heads · head_width, width]
  const container::GgufTensor* wv;         // [kv_heads · head_width, width]
  const container::GgufTensor* wo;         // [width, heads · head_width]
  const container::GgufTensor* ffn_norm;   // [width] F32
  const container::GgufTensor* gate;       // [ffn_width, width]
  const container::GgufTensor* up;         // [ffn_width, width]
  const container::GgufTensor* down;       // [width, ffn_width]
};

struct LlamaTensors {
  const container::GgufTensor* embedding;    // [vocab, width]
  const container::GgufTensor* output_norm;  // [width] F32
  const container::GgufTensor* output;       // [vocab, width]; the embedding when tied
  const container::GgufTensor*
      rope_freqs;  // [head_width / 2] F32 divisors of frequencies; may be null
  std::vector<LlamaLayerTensors> layers;
  bool tied() const { return output == embedding; }
};

struct LlamaModel {
  LlamaConfig config;
  LlamaTensors tensors;
};

// kUnsupported: an unknown family, a feature or a kind of weights that is not implemented, naming
// the field; kNotFound, kInvalid, kCorrupt: a key or tensor is missing, out of range or of another
// shape.
Result<LlamaModel> read_llama(const container::GgufFile& file);

// The row of the file's wq or wk that holds row `row` of transformers' layout, in which RoPE turns
// the pairs (i, i + head_width / 2).
constexpr int unpermuted_row(int row, int head_width) {
  const int head = row / head_width;
  const int in_head = row % head_width;
  const int half = head_width / 2;
  return head * head_width + 2 * (in_head % half) + in_head / half;
}

// Angle a position turns pair i by, in radians: position · frequencies[i]; [head_width / 2].
std::vector<float> rope_frequencies(const LlamaModel& model);

}  // namespace kvfs::model
