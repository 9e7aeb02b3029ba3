#include "engine/model/cpu/forward.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/model/dequantize.h"

namespace kvfs::model::cpu {
namespace {

std::size_t size(int a, int b) { return static_cast<std::size_t>(a) * static_cast<std::size_t>(b); }

// Consecutive rows of a sequence that share a page, at most kAttendPositions at a time.
std::vector<RowRun> runs_of(std::span<const StepRow> rows) {
  std::vector<RowRun> runs;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const StepRow& row = rows[i];
    if (!runs.empty()) {
      RowRun& last = runs.back();
      if (last.sequence == row.sequence && last.first_pos + last.count == row.pos &&
          last.first_pos / kPage == row.pos / kPage && last.count < kAttendPositions) {
        ++last.count;
        continue;
      }
    }
    runs.push_back({row.sequence, static_cast<int>(i), 1, row.pos});
  }
  return runs;
}

}  // namespace

Forward::Forward(const LlamaModel& model, Weights weights, const PageShape& shape,
                 const Kernels& kernels, ForkJoin& pool, int max_rows)
    : model_(model),
      weights_(std::move(weights)),
      kernels_(kernels),
      pool_(pool),
      max_rows_(max_rows),
      attention_(kernels, model.config.heads, shape, pool.threads()),
      frequencies_(rope_frequencies(model)) {
  const LlamaConfig& c = model.config;
  const int q = c.heads * c.head_width;
  const int widest = std::max({c.width, q, c.ffn_width});
  x_.resize(size(max_rows, c.width));
  normed_.resize(size(max_rows, c.width));
  cosines_.resize(size(max_rows, c.head_width / 2));
  sines_.resize(cosines_.size());
  qkv_.resize(size(max_rows, q + 2 * c.kv_heads * c.head_width));
  attended_.resize(size(max_rows, q));
  gate_up_.resize(size(max_rows, 2 * c.ffn_width));
  hidden_.resize(size(max_rows, c.ffn_width));
  int8_.resize(size(max_rows, widest));
  scales_.resize(size(max_rows, widest / kBlock));
  sums_.resize(scales_.size());
  found_.resize(scales_.size());
}

Status Forward::step(std::span<const StepRow> rows, bool reading) {
  const std::vector<RowRun> runs = runs_of(rows);
  embed(rows);
  find_angles(rows);
  for (int i = 0; i < model_.config.layers; ++i) KVFS_TRY(layer(i, rows, runs, reading));
  return logits(rows, reading);
}

void Forward::embed(std::span<const StepRow> rows) {
  const auto width = static_cast<std::size_t>(model_.config.width);
  const container::GgufTensor& table = *model_.tensors.embedding;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    dequantize_row(table.type, row_of(table, static_cast<std::size_t>(rows[r].token)),
                   {&x_[r * width], width});
  }
}

void Forward::find_angles(std::span<const StepRow> rows) {
  const std::size_t half = frequencies_.size();
  for (std::size_t r = 0; r < rows.size(); ++r) {
    for (std::size_t i = 0; i < half; ++i) {
      const double angle = static_cast<float>(rows[r].pos) * frequencies_[i];
      cosines_[r * half + i] = static_cast<float>(std::cos(angle));
      sines_[r * half + i] = static_cast<float>(std::sin(angle));
    }
  }
}

Status Forward::layer(int index, std::span<const StepRow> rows, const std::vector<RowRun>& runs,
                      bool reading) {
  const LlamaConfig& c = model_.config;
  const LayerWeights& w = weights_.layers[static_cast<std::size_t>(index)];
  const auto n = static_cast<int>(rows.size());
  const int q = c.heads * c.head_width;
  const std::size_t qkv = static_cast<std::size_t>(q + 2 * c.kv_heads * c.head_width);

  norm(x_.data(), n, w.attn_norm, w.qkv);
  KVFS_TRY(w.qkv.multiply(activations(normed_.data(), n, c.width, reading),
                          {qkv_.data(), qkv, false}, pool_));
  turn_and_store(index, rows);
  attention_.attend(index, runs, qkv_.data(), qkv, attended_.data(), pool_);
  quantize_rows(attended_.data(), n, q, w.attn_out);
  const auto width = static_cast<std::size_t>(c.width);
  KVFS_TRY(w.attn_out.multiply(activations(attended_.data(), n, q, reading),
                               {x_.data(), width, true}, pool_));

  norm(x_.data(), n, w.ffn_norm, w.gate_up);
  const std::size_t both = 2 * static_cast<std::size_t>(c.ffn_width);
  KVFS_TRY(w.gate_up.multiply(activations(normed_.data(), n, c.width, reading),
                              {gate_up_.data(), both, false}, pool_));
  pool_.for_each(n, [&](int r, int) {
    const float* gate = &gate_up_[static_cast<std::size_t>(r) * both];
    kernels_.swiglu(gate, gate + c.ffn_width, c.ffn_width, &hidden_[size(r, c.ffn_width)]);
  });
  quantize_rows(hidden_.data(), n, c.ffn_width, w.down);
  return w.down.multiply(activations(hidden_.data(), n, c.ffn_width, reading),
                         {x_.data(), width, true}, pool_);
}

void Forward::turn_and_store(int layer, std::span<const StepRow> rows) {
  const LlamaConfig& c = model_.config;
  const int half = c.head_width / 2;
  const float factor = 1.0F / std::sqrt(static_cast<float>(c.head_width));
  const int q = c.heads * c.head_width;
  const int kv = c.kv_heads * c.head_width;
  pool_.for_each(static_cast<int>(rows.size()), [&](int r, int) {
    const StepRow& row = rows[static_cast<std::size_t>(r)];
    float* at = &qkv_[size(r, q + 2 * kv)];
    const float* cosines = &cosines_[size(r, half)];
    const float* sines = &sines_[size(r, half)];
    for (int h = 0; h < c.heads + c.kv_heads; ++h)
      kernels_.rotate(at + h * c.head_width, cosines, sines, half);
    kernels_.scale(at, factor, q);
    Page& page = row.sequence->page(row.pos / kPage);
    for (int h = 0; h < c.kv_heads; ++h) {
      page.put(layer, h, row.pos % kPage, at + q + h * c.head_width,
               at + q + kv + h * c.head_width);
    }
  });
}

Status Forward::logits(std::span<const StepRow> rows, bool reading) {
  const LlamaConfig& c = model_.config;
  const auto width = static_cast<std::size_t>(c.width);
  int n = 0;
  for (std::size_t r = 0; r < rows.size(); ++r) {  // the rows that are asked for, to the front
    if (rows[r].logits.empty()) continue;
    if (static_cast<std::size_t>(n) != r)
      std::memcpy(&x_[size(n, c.width)], &x_[r * width], width * sizeof(float));
    ++n;
  }
  if (n == 0) return {};
  const std::size_t stride = (static_cast<std::size_t>(c.vocab) + 7) / 8 * 8;
  logits_.resize(std::max(logits_.size(), static_cast<std::size_t>(n) * stride));
  norm(x_.data(), n, weights_.output_norm, weights_.output);
  KVFS_TRY(weights_.output.multiply(activations(normed_.data(), n, c.width, reading),
                                    {logits_.data(), stride, false}, pool_));
  std::size_t at = 0;
  for (const StepRow& row : rows) {
    if (row.logits.empty()) continue;
    std::memcpy(row.logits.data(), &logits_[at], row.logits.size_bytes());
    at += stride;
  }
  return {};
}

void Forward::norm(const float* x, int rows, const std::vector<float>& weight,
                   const Projection& to) {
  const int width = model_.config.width;
  const bool quantized = to.wants_quantized();
  pool_.for_each(rows, [&](int r, int) {
    const std::size_t at = size(r, width);
    kernels_.rms_norm(x + at, weight.data(), model_.config.rms_epsilon, width, &normed_[at]);
    if (quantized) quantize_row(&normed_[at], r, width);
  });
  if (quantized) list_outliers(rows, width);
}

void Forward::quantize_rows(const float* x, int rows, int columns, const Projection& to) {
  if (!to.wants_quantized()) return;
  pool_.for_each(rows, [&](int r, int) { quantize_row(x + size(r, columns), r, columns); });
  list_outliers(rows, columns);
}

void Forward::quantize_row(const float* x, int row, int columns) {
  const std::size_t block = size(row, columns / kBlock);
  kernels_.quantize(x, columns, &int8_[size(row, columns)], &scales_[block], &sums_[block],
                    &found_[block]);
}

void Forward::list_outliers(int rows, int columns) {
  const int blocks = columns / kBlock;
  outliers_.clear();
  outlier_starts_.assign(1, 0);
  for (int first = 0; first < rows; first += kRowBlock) {
    for (int block = 0; block < blocks; ++block) {
      const auto begin = static_cast<std::ptrdiff_t>(outliers_.size());
      for (int row = first; row < std::min(rows, first + kRowBlock); ++row) {
        Outlier found = found_[size(row, blocks) + static_cast<std::size_t>(block)];
        if (found.column < 0) continue;
        found.row = row;
        outliers_.push_back(found);
      }
      // Rows that share a column (they often do) one after the other: its weights are unpacked
      // once.
      std::sort(outliers_.begin() + begin, outliers_.end(), [](const Outlier& a, const Outlier& b) {
        return a.column != b.column ? a.column < b.column : a.row < b.row;
      });
    }
    outlier_starts_.push_back(static_cast<std::int32_t>(outliers_.size()));
  }
}

Activations Forward::activations(const float* x, int rows, int columns, bool reading) const {
  const QuantizedRows quantized{int8_.data(),     scales_.data(),         sums_.data(),
                                outliers_.data(), outlier_starts_.data(), rows,
                                columns};
  return {x, quantized, rows, reading};
}

}  // namespace kvfs::model::cpu
