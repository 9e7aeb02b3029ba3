#include "engine/model/cpu/forward.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/model/dequantize.h"
#include "engine/prune/methods.h"

namespace kvfs::model::cpu {
namespace {

std::size_t size(int a, int b) { return static_cast<std::size_t>(a) * static_cast<std::size_t>(b); }
std::size_t padded(int n) { return (static_cast<std::size_t>(n) + 7) / 8 * 8; }

// Consecutive rows of a sequence that share a page, at most kAttendPositions at a time.
std::vector<RowRun> runs_of(std::span<const StepRow> rows) {
  std::vector<RowRun> runs;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const StepRow& row = rows[i];
    if (!runs.empty()) {
      RowRun& last = runs.back();
      if (last.sequence == row.sequence && last.first_pos + last.count == row.pos &&
          last.first_pos / kPage == row.pos / kPage && last.count < kAttendPositions &&
          last.watch == row.watch) {
        ++last.count;
        continue;
      }
    }
    runs.push_back({row.sequence, static_cast<int>(i), 1, row.pos, row.watch});
  }
  return runs;
}

// Rows that are read are of one sequence, and have one watch.
bool watches_queries(std::span<const StepRow> rows) {
  return rows[0].watch != nullptr && rows[0].watch->queries != nullptr;
}

int widest_ffn(const Architecture& a) {
  int widest = 0;
  for (const Layer& layer : a.layers)
    for (const FeedForward& ffn : layer.experts) widest = std::max(widest, ffn.width);
  return widest;
}

}  // namespace

Forward::Forward(const Architecture& architecture, Weights weights, const PageShape& shape,
                 const Kernels& kernels, ForkJoin& pool, int max_rows)
    : model_(architecture),
      weights_(std::move(weights)),
      kernels_(kernels),
      pool_(pool),
      max_rows_(max_rows),
      attention_(kernels, architecture.heads, shape, pool.threads()),
      convolution_(shape, architecture.width, max_rows),
      quantizer_(kernels, max_rows,
                 std::max({architecture.width, architecture.q_width(), widest_ffn(architecture)})),
      angles_(architecture.ropes.size()) {
  const Architecture& a = architecture;
  const std::size_t stream = size(max_rows, a.width);
  x_.resize(stream);
  normed_.resize(stream);
  attention_part_.resize(stream);
  ffn_part_.resize(stream);
  for (std::size_t i = 0; i < angles_.size(); ++i) {
    angles_[i].pairs = a.ropes[i].frequencies.size();
    angles_[i].cosines.resize(static_cast<std::size_t>(max_rows) * angles_[i].pairs);
    angles_[i].sines.resize(angles_[i].cosines.size());
  }
  const bool convolves = std::ranges::any_of(
      a.layers, [](const Layer& layer) { return layer.convolution.has_value(); });
  const int gates = convolves ? 3 * a.width : 0;
  qkv_.resize(size(max_rows, std::max(a.q_width() + 2 * a.kv_width(), gates)));
  attended_.resize(size(max_rows, std::max(a.q_width(), a.width)));
  up_.resize(size(max_rows, 2 * widest_ffn(a)));
  hidden_.resize(size(max_rows, widest_ffn(a)));
}

Status Forward::step(std::span<const StepRow> rows, bool reading) {
  const std::vector<RowRun> runs = runs_of(rows);
  const auto n = static_cast<int>(rows.size());
  embed(rows);
  find_angles(rows);
  for (int i = 0; i < static_cast<int>(model_.layers.size()); ++i) {
    const bool convolves = model_.layers[static_cast<std::size_t>(i)].convolution.has_value();
    KVFS_TRY(convolves ? convolution(i, rows, reading) : attention(i, rows, runs, reading));
    KVFS_TRY(feed_forward(i, n, reading));
    if (model_.parallel) add_to_stream({}, attention_part_.data(), n);
  }
  return logits(rows, reading);
}

void Forward::embed(std::span<const StepRow> rows) {
  const auto width = static_cast<std::size_t>(model_.width);
  const Tensor& table = *model_.embedding;
  const auto n = static_cast<int>(rows.size());
  for (std::size_t r = 0; r < rows.size(); ++r) {
    dequantize_row(table.type, row_of(table, static_cast<std::size_t>(rows[r].token)),
                   {&x_[r * width], width});
  }
  if (model_.embedding_scale != 1.0F)
    kernels_.scale(x_.data(), model_.embedding_scale, n * model_.width);
  if (model_.positions == nullptr) return;
  const Tensor& positions = *model_.positions;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    dequantize_row(positions.type, row_of(positions, static_cast<std::size_t>(rows[r].pos)),
                   {&normed_[r * width], width});
  }
  kernels_.add_scaled(x_.data(), normed_.data(), 1.0F, n * model_.width);
}

namespace {
// Cosines and sines [pairs] of a position.
void turn(const Rope& rope, Position pos, float* cosines, float* sines) {
  const bool late = !rope.late_frequencies.empty() && pos >= rope.late_from;
  const std::vector<float>& frequencies = late ? rope.late_frequencies : rope.frequencies;
  for (std::size_t i = 0; i < rope.frequencies.size(); ++i) {
    const double angle = static_cast<float>(pos) * frequencies[i];
    cosines[i] = static_cast<float>(std::cos(angle)) * rope.magnitude;
    sines[i] = static_cast<float>(std::sin(angle)) * rope.magnitude;
  }
}
}  // namespace

void Forward::find_angles(std::span<const StepRow> rows) {
  for (std::size_t which = 0; which < angles_.size(); ++which) {
    Angles& to = angles_[which];
    for (std::size_t r = 0; r < rows.size(); ++r) {
      turn(model_.ropes[which], rows[r].pos, &to.cosines[r * to.pairs], &to.sines[r * to.pairs]);
    }
  }
}

void Forward::angles_at(int layer, Position pos, std::vector<float>& cosines,
                        std::vector<float>& sines) const {
  const std::optional<int> rope = model_.layers[static_cast<std::size_t>(layer)].rope;
  const std::size_t pairs = rope ? angles_[static_cast<std::size_t>(*rope)].pairs : 0;
  cosines.resize(pairs);
  sines.resize(pairs);
  if (rope) turn(model_.ropes[static_cast<std::size_t>(*rope)], pos, cosines.data(), sines.data());
}

Status Forward::attention(int index, std::span<const StepRow> rows, const std::vector<RowRun>& runs,
                          bool reading) {
  const LayerWeights& w = weights_.layers[static_cast<std::size_t>(index)];
  const Layer& layer = model_.layers[static_cast<std::size_t>(index)];
  const auto n = static_cast<int>(rows.size());
  const int q = model_.q_width();
  const auto qkv = static_cast<std::size_t>(q + 2 * model_.kv_width());

  const float* in = prepare(w.attn_norm, x_.data(), n, w.qkv);
  KVFS_TRY(apply(w.qkv, in, n, {qkv_.data(), qkv, false}, reading));
  turn_and_store(index, rows);
  const AttentionRule rule{layer.window, model_.score_cap};
  attention_.attend(index, rule, runs, qkv_.data(), qkv, attended_.data(), pool_);
  return close(w.attn_out, w.attn_post, attended_.data(), n, reading);
}

Status Forward::convolution(int index, std::span<const StepRow> rows, bool reading) {
  const LayerWeights& w = weights_.layers[static_cast<std::size_t>(index)];
  const auto n = static_cast<int>(rows.size());
  const auto gates = static_cast<std::size_t>(3 * model_.width);
  const float* in = prepare(w.attn_norm, x_.data(), n, w.convolution.in);
  KVFS_TRY(apply(w.convolution.in, in, n, {qkv_.data(), gates, false}, reading));
  convolution_.run(index, w.convolution, rows, qkv_.data(), attended_.data(), pool_);
  return close(w.convolution.out, w.attn_post, attended_.data(), n, reading);
}

Status Forward::close(const Projection& out, const NormWeights& post, float* gathered, int rows,
                      bool reading) {
  const auto width = static_cast<std::size_t>(model_.width);
  prepare({}, gathered, rows, out);
  if (!model_.parallel && post.kind == Norm::Kind::kNone)
    return apply(out, gathered, rows, {x_.data(), width, true}, reading);
  KVFS_TRY(apply(out, gathered, rows, {attention_part_.data(), width, false}, reading));
  if (!model_.parallel) add_to_stream(post, attention_part_.data(), rows);
  return {};
}

void Forward::turn_and_store(int layer, std::span<const StepRow> rows) {
  const LayerWeights& w = weights_.layers[static_cast<std::size_t>(layer)];
  const std::optional<int> rope = model_.layers[static_cast<std::size_t>(layer)].rope;
  const int width = model_.head_width;
  const int q = model_.q_width();
  const int kv = model_.kv_width();
  const auto normalise = [&](const NormWeights& norm, float* at, int length) {
    const auto step = static_cast<int>(norm.weight.size());
    if (norm.kind == Norm::Kind::kNone) return;
    for (int i = 0; i < length; i += step) norm_row(norm, at + i, step, at + i);
  };
  const bool watched = watches_queries(rows);
  if (watched) unturned_.resize(size(max_rows_, q));
  pool_.for_each(static_cast<int>(rows.size()), [&](int r, int) {
    const StepRow& row = rows[static_cast<std::size_t>(r)];
    float* at = &qkv_[size(r, q + 2 * kv)];
    normalise(w.q_norm, at, q);
    normalise(w.k_norm, at + q, kv);
    if (watched) std::copy_n(at, q, &unturned_[size(r, q)]);
    if (rope) {
      const Angles& angles = angles_[static_cast<std::size_t>(*rope)];
      const std::size_t begin = static_cast<std::size_t>(r) * angles.pairs;
      for (int h = 0; h < model_.heads + model_.kv_heads; ++h) {
        kernels_.rotate(at + h * width, &angles.cosines[begin], &angles.sines[begin],
                        static_cast<int>(angles.pairs));
      }
    }
    kernels_.scale(at, model_.attention_scale, q);
    Page& page = row.sequence->page(row.pos / kPage);
    for (int h = 0; h < model_.kv_heads; ++h)
      page.put(layer, h, row.pos % kPage, at + q + h * width, at + q + kv + h * width);
  });
  if (watched) watch_queries(layer, rows);
}

// Those behind the sinks, whose queries are like no others.
void Forward::watch_queries(int layer, std::span<const StepRow> rows) {
  const auto sinks =
      std::ranges::count_if(rows, [](const StepRow& row) { return row.pos < prune::kSinks; });
  const auto count = static_cast<int>(rows.size() - static_cast<std::size_t>(sinks));
  rows[0].watch->queries->add(layer, &unturned_[size(static_cast<int>(sinks), model_.q_width())],
                              count, pool_);
}

Status Forward::feed_forward(int index, int rows, bool reading) {
  const LayerWeights& w = weights_.layers[static_cast<std::size_t>(index)];
  const Layer& layer = model_.layers[static_cast<std::size_t>(index)];
  const auto width = static_cast<std::size_t>(model_.width);
  const bool mixed = !layer.router.weight.empty();
  const float* in = prepare(w.ffn_norm, x_.data(), rows, mixed ? w.router : w.experts[0].up);
  if (!mixed && w.ffn_post.kind == Norm::Kind::kNone) {
    return expert(layer.experts[0], w.experts[0], in, rows, {x_.data(), width, true}, reading);
  }
  if (mixed) {
    KVFS_TRY(mixture(index, in, rows, ffn_part_.data(), reading));
  } else {
    KVFS_TRY(expert(layer.experts[0], w.experts[0], in, rows, {ffn_part_.data(), width, false},
                    reading));
  }
  add_to_stream(w.ffn_post, ffn_part_.data(), rows);
  return {};
}

Status Forward::mixture(int index, const float* in, int rows, float* out, bool reading) {
  const LayerWeights& w = weights_.layers[static_cast<std::size_t>(index)];
  const Layer& layer = model_.layers[static_cast<std::size_t>(index)];
  const auto width = static_cast<std::size_t>(model_.width);
  const auto experts = static_cast<int>(layer.experts.size());
  const std::size_t stride = padded(experts);
  logits_.resize(std::max(logits_.size(), static_cast<std::size_t>(rows) * stride));
  KVFS_TRY(apply(w.router, in, rows, {logits_.data(), stride, false}, reading));
  router_.choose(logits_.data(), static_cast<int>(stride), rows, experts, layer.experts_chosen,
                 layer.weights_renormalized);

  gathered_.resize(x_.size());
  answered_.resize(x_.size());
  std::fill_n(out, static_cast<std::size_t>(rows) * width, 0.0F);
  for (int e = 0; e < experts; ++e) {
    const std::vector<Router::Visit>& visits = router_.visits(e);
    if (visits.empty()) continue;
    for (std::size_t i = 0; i < visits.size(); ++i) {
      std::memcpy(&gathered_[i * width], in + size(visits[i].row, model_.width),
                  width * sizeof(float));
    }
    const auto count = static_cast<int>(visits.size());
    const FeedForwardWeights& weights = w.experts[static_cast<std::size_t>(e)];
    prepare({}, gathered_.data(), count, weights.up);
    KVFS_TRY(expert(layer.experts[static_cast<std::size_t>(e)], weights, gathered_.data(), count,
                    {answered_.data(), width, false}, reading));
    for (std::size_t i = 0; i < visits.size(); ++i) {
      kernels_.add_scaled(out + size(visits[i].row, model_.width), &answered_[i * width],
                          visits[i].share, model_.width);
    }
  }
  return {};
}

Status Forward::expert(const FeedForward& shape, const FeedForwardWeights& weights, const float* in,
                       int rows, Output out, bool reading) {
  const int width = shape.width;
  const int outputs = shape.gated ? 2 * width : width;
  KVFS_TRY(
      apply(weights.up, in, rows, {up_.data(), static_cast<std::size_t>(outputs), false}, reading));
  pool_.for_each(rows, [&](int r, int) {
    const float* up = &up_[size(r, outputs)];
    kernels_.activate(shape.activation, up, shape.gated ? up + width : nullptr, width,
                      &hidden_[size(r, width)]);
  });
  prepare({}, hidden_.data(), rows, weights.down);
  return apply(weights.down, hidden_.data(), rows, out, reading);
}

Status Forward::logits(std::span<const StepRow> rows, bool reading) {
  const auto width = static_cast<std::size_t>(model_.width);
  int n = 0;
  for (std::size_t r = 0; r < rows.size(); ++r) {  // the rows that are asked for, to the front
    if (rows[r].logits.empty()) continue;
    if (static_cast<std::size_t>(n) != r)
      std::memcpy(&x_[size(n, model_.width)], &x_[r * width], width * sizeof(float));
    ++n;
  }
  if (n == 0) return {};
  const std::size_t stride = padded(model_.vocab);
  logits_.resize(std::max(logits_.size(), static_cast<std::size_t>(n) * stride));
  const float* in = prepare(weights_.output_norm, x_.data(), n, weights_.output);
  KVFS_TRY(apply(weights_.output, in, n, {logits_.data(), stride, false}, reading));
  std::size_t at = 0;
  for (const StepRow& row : rows) {
    if (row.logits.empty()) continue;
    if (model_.logit_cap != 0.0F)
      kernels_.soft_cap(&logits_[at], model_.logit_cap, static_cast<int>(stride));
    std::memcpy(row.logits.data(), &logits_[at], row.logits.size_bytes());
    at += stride;
  }
  return {};
}

void Forward::norm_row(const NormWeights& norm, const float* x, int length, float* out) const {
  if (norm.kind == Norm::Kind::kRms)
    kernels_.rms_norm(x, norm.weight.data(), model_.epsilon, length, out);
  else
    kernels_.layer_norm(x, norm.weight.data(), norm.bias.empty() ? nullptr : norm.bias.data(),
                        model_.epsilon, length, out);
}

const float* Forward::prepare(const NormWeights& norm, const float* x, int rows,
                              const Projection& to) {
  const bool normed = norm.kind != Norm::Kind::kNone;
  const bool quantized = to.wants_quantized();
  const int columns = to.inputs;
  if (!normed && !quantized) return x;
  pool_.for_each(rows, [&](int r, int) {
    const float* row = x + size(r, columns);
    if (normed) {
      float* out = &normed_[size(r, columns)];
      norm_row(norm, row, columns, out);
      row = out;
    }
    if (quantized) quantizer_.quantize(row, r, columns);
  });
  if (quantized) quantizer_.list(rows, columns);
  return normed ? normed_.data() : x;
}

Status Forward::apply(const Projection& to, const float* in, int rows, Output out, bool reading) {
  const Activations activations{in, quantizer_.view(rows, to.inputs), rows, reading};
  KVFS_TRY(to.multiply(activations, out, pool_));
  if (to.bias.empty()) return {};
  pool_.for_each(rows, [&](int r, int) {
    kernels_.add_scaled(out.y + static_cast<std::size_t>(r) * out.stride, to.bias.data(), 1.0F,
                        static_cast<int>(to.bias.size()));
  });
  return {};
}

void Forward::add_to_stream(const NormWeights& post, float* part, int rows) {
  const int width = model_.width;
  pool_.for_each(rows, [&](int r, int) {
    float* row = part + size(r, width);
    if (post.kind != Norm::Kind::kNone) norm_row(post, row, width, row);
    kernels_.add_scaled(&x_[size(r, width)], row, 1.0F, width);
  });
}

}  // namespace kvfs::model::cpu
