// The forward pass of an Architecture over the rows of one step.
//
// Fast and reference differ in their matrices (weights.h) and pages alone. Activations are fp32
// between kernels; each row is computed by itself, so that its bits do not depend on its company.
#pragma once

#include <span>
#include <vector>

#include "engine/model/cpu/attention.h"
#include "engine/model/cpu/router.h"
#include "engine/model/cpu/row_quantizer.h"
#include "engine/model/cpu/short_convolution.h"
#include "engine/model/cpu/weights.h"

namespace kvfs::model::cpu {

class Forward {
 public:
  Forward(const Architecture& architecture, Weights weights, const PageShape& shape,
          const Kernels& kernels, ForkJoin& pool, int max_rows);

  // Writes KV at the rows' positions and fills their logits. reading: rows of one prompt, in order;
  // else one row for each of several sequences.
  Status step(std::span<const StepRow> rows, bool reading);
  int max_rows() const { return max_rows_; }
  // How far a layer turns its queries at a position: [pairs] cosines and sines; none: not at all.
  void angles_at(int layer, Position pos, std::vector<float>& cosines,
                 std::vector<float>& sines) const;
  const Architecture& architecture() const { return model_; }

 private:
  struct Angles {  // of one of the ropes: [rows, pairs]
    std::size_t pairs = 0;
    std::vector<float> cosines;
    std::vector<float> sines;
  };

  void embed(std::span<const StepRow> rows);
  void find_angles(std::span<const StepRow> rows);
  void watch_queries(int layer, std::span<const StepRow> rows);
  Status attention(int index, std::span<const StepRow> rows, const std::vector<RowRun>& runs,
                   bool reading);
  Status convolution(int index, std::span<const StepRow> rows, bool reading);
  // Projects what a layer's rows gathered, and adds it to the stream or leaves it for later.
  Status close(const Projection& out, const NormWeights& post, float* gathered, int rows,
               bool reading);
  void turn_and_store(int layer, std::span<const StepRow> rows);
  Status feed_forward(int index, int rows, bool reading);
  Status mixture(int index, const float* in, int rows, float* out, bool reading);
  Status expert(const FeedForward& shape, const FeedForwardWeights& weights, const float* in,
                int rows, Output out, bool reading);
  Status logits(std::span<const StepRow> rows, bool reading);

  void norm_row(const NormWeights& norm, const float* x, int length, float* out) const;
  // x normalised (x itself where there is no norm), quantized when `to` wants it.
  const float* prepare(const NormWeights& norm, const float* x, int rows, const Projection& to);
  // Projects prepared rows, bias included.
  Status apply(const Projection& to, const float* in, int rows, Output out, bool reading);
  // Adds what a part of a layer gave to the stream, normalised first where a norm follows.
  void add_to_stream(const NormWeights& post, float* part, int rows);

  const Architecture& model_;
  Weights weights_;
  const Kernels& kernels_;
  ForkJoin& pool_;
  int max_rows_;
  Attention attention_;
  ShortConvolution convolution_;
  RowQuantizer quantizer_;
  Router router_;

  // Scratch for max_rows rows.
  std::vector<float> x_;               // [rows, width]: the residual stream
  std::vector<float> normed_;          // [rows, width]
  std::vector<float> attention_part_;  // [rows, width]: what attention adds
  std::vector<float> ffn_part_;        // [rows, width]: what the feed-forward adds
  std::vector<Angles> angles_;
  std::vector<float> qkv_;  // [rows, (heads + 2 · kv_heads) · head_width], or a convolution's
                            // [rows, 3 · width]
  std::vector<float> unturned_;  // [rows, heads · head_width]: watched queries before RoPE
  std::vector<float> attended_;  // [rows, heads · head_width], or [rows, width]
  std::vector<float> up_;        // [rows, outputs of the widest up]
  std::vector<float> hidden_;    // [rows, widest ffn width]
  std::vector<float> gathered_;  // [rows, width]: an expert's rows
  std::vector<float> answered_;  // [rows, width]
  std::vector<float> logits_;    // [rows with logits, vocab rounded up to 8]
};

}  // namespace kvfs::model::cpu
