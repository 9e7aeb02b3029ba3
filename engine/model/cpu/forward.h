// The forward pass of a llama over the rows of one step.
//
// Fast and reference differ in their matrices (weights.h) and pages alone. Activations are fp32
// between kernels; each row is computed by itself, so that its bits do not depend on its company.
#pragma once

#include <span>
#include <vector>

#include "engine/model/cpu/attention.h"
#include "engine/model/cpu/weights.h"

namespace kvfs::model::cpu {

// One token to compute. Its sequence has a writable place for it and the pages before it.
struct StepRow {
  TokenId token;
  PagedSequence* sequence;
  Position pos;
  std::span<float> logits;  // [vocab] or empty
};

class Forward {
 public:
  Forward(const LlamaModel& model, Weights weights, const PageShape& shape, const Kernels& kernels,
          ForkJoin& pool, int max_rows);

  // Writes KV at the rows' positions and fills their logits. reading: rows of one prompt, in order;
  // else one row for each of several sequences.
  Status step(std::span<const StepRow> rows, bool reading);
  int max_rows() const { return max_rows_; }

 private:
  void embed(std::span<const StepRow> rows);
  void find_angles(std::span<const StepRow> rows);
  Status layer(int index, std::span<const StepRow> rows, const std::vector<RowRun>& runs,
               bool reading);
  void turn_and_store(int layer, std::span<const StepRow> rows);
  Status logits(std::span<const StepRow> rows, bool reading);

  // normed_ = rms_norm(x rows) · weight, quantized when `to` wants it.
  void norm(const float* x, int rows, const std::vector<float>& weight, const Projection& to);
  void quantize_row(const float* x, int row, int columns);
  void list_outliers(int rows, int columns);
  void quantize_rows(const float* x, int rows, int columns, const Projection& to);
  Activations activations(const float* x, int rows, int columns, bool reading) const;

  const LlamaModel& model_;
  Weights weights_;
  const Kernels& kernels_;
  ForkJoin& pool_;
  int max_rows_;
  Attention attention_;
  std::vector<float> frequencies_;  // [head_width / 2]

  // Scratch for max_rows rows.
  std::vector<float> x_;        // [rows, width]: the residual stream
  std::vector<float> normed_;   // [rows, width]
  std::vector<float> cosines_;  // [rows, head_width / 2]
  std::vector<float> sines_;
  std::vector<float> qkv_;         // [rows, (heads + 2 · kv_heads) · head_width]
  std::vector<float> attended_;    // [rows, heads · head_width]
  std::vector<float> gate_up_;     // [rows, 2 · ffn_width]
  std::vector<float> hidden_;      // [rows, ffn_width]
  std::vector<float> logits_;      // [rows with logits, vocab rounded up to 8]
  std::vector<std::int8_t> int8_;  // [rows, widest input]
  std::vector<float> scales_;
  std::vector<float> sums_;
  std::vector<Outlier> found_;     // [rows, blocks]
  std::vector<Outlier> outliers_;  // listed, see QuantizedRows
  std::vector<std::int32_t> outlier_starts_;
};

}  // namespace kvfs::model::cpu
