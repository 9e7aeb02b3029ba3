#include "engine/model/cpu/short_convolution.h"

#include <algorithm>
#include <cstring>

#include "engine/model/dequantize.h"

namespace kvfs::model::cpu {
namespace {

bool convolves(const PageShape& shape) {
  return std::ranges::any_of(
      shape.layers, [](const LayerShape& layer) { return layer.kind == LayerKind::kConvolution; });
}

// Whether a later row of the step takes the row's place in its page.
bool is_overtaken(std::span<const StepRow> rows, std::size_t row, std::size_t kept) {
  if (row + kept >= rows.size()) return false;
  const StepRow& later = rows[row + kept];
  return later.sequence == rows[row].sequence && later.pos / kPage == rows[row].pos / kPage;
}

}  // namespace

ShortConvolution::ShortConvolution(const PageShape& shape, int channels, int max_rows)
    : shape_(shape), channels_(static_cast<std::size_t>(channels)) {
  if (!convolves(shape)) return;
  inputs_.resize(channels_ * static_cast<std::size_t>(max_rows));
  before_.resize(inputs_.size());
}

void ShortConvolution::run(int layer, const ConvolutionWeights& weights,
                           std::span<const StepRow> rows, const float* gates, float* out,
                           ForkJoin& pool) {
  const std::size_t n = channels_;
  const int taps = static_cast<int>(weights.taps.size() / n);
  const auto count = static_cast<int>(rows.size());
  pool.for_each(count, [&](int r, int) {
    const auto row = static_cast<std::size_t>(r);
    find_input(gates + row * 3 * n, &inputs_[row * n]);
  });
  pool.for_each(count, [&](int r, int) {
    const auto row = static_cast<std::size_t>(r);
    float* const y = out + row * n;
    std::copy(weights.bias.begin(), weights.bias.end(), y);
    for (int k = 0; k < taps; ++k) {
      const float* x = input(layer, rows, r, taps - 1 - k, &before_[row * n]);
      if (x == nullptr) continue;
      const float* tap = &weights.taps[static_cast<std::size_t>(k) * n];
      for (std::size_t c = 0; c < n; ++c) y[c] += tap[c] * x[c];
    }
    const float* gate = gates + row * 3 * n + n;
    for (std::size_t c = 0; c < n; ++c) y[c] *= gate[c];
  });
  // Not before every row has read: the places are those of older inputs.
  const std::size_t kept = shape_.layer(layer).kept;
  pool.for_each(count, [&](int r, int) {
    const auto row = static_cast<std::size_t>(r);
    if (is_overtaken(rows, row, kept)) return;
    const StepRow& at = rows[row];
    store(&inputs_[row * n], at.sequence->page(at.pos / kPage).input(layer, at.pos % kPage));
  });
}

void ShortConvolution::find_input(const float* gates, float* input) const {
  const float* const z = gates + 2 * channels_;
  for (std::size_t c = 0; c < channels_; ++c) input[c] = gates[c] * z[c];
  if (shape_.dtype != DType::kBF16) return;
  for (std::size_t c = 0; c < channels_; ++c) input[c] = bf16_to_float(float_to_bf16(input[c]));
}

const float* ShortConvolution::input(int layer, std::span<const StepRow> rows, int row, int back,
                                     float* room) const {
  const StepRow& at = rows[static_cast<std::size_t>(row)];
  const Position pos = at.pos - back;
  if (pos < 0) return nullptr;
  const int in_step = row - back;
  if (in_step >= 0 && rows[static_cast<std::size_t>(in_step)].sequence == at.sequence)
    return &inputs_[static_cast<std::size_t>(in_step) * channels_];
  const PagedSequence& sequence = *at.sequence;
  load(sequence.page(pos / kPage).input(layer, pos % kPage), room);
  return room;
}

void ShortConvolution::load(const std::uint8_t* kept, float* input) const {
  if (shape_.dtype == DType::kF32) {
    std::memcpy(input, kept, channels_ * sizeof(float));
    return;
  }
  const auto* narrow = reinterpret_cast<const std::uint16_t*>(kept);
  for (std::size_t c = 0; c < channels_; ++c) input[c] = bf16_to_float(narrow[c]);
}

void ShortConvolution::store(const float* input, std::uint8_t* kept) const {
  if (shape_.dtype == DType::kF32) {
    std::memcpy(kept, input, channels_ * sizeof(float));
    return;
  }
  auto* narrow = reinterpret_cast<std::uint16_t*>(kept);
  for (std::size_t c = 0; c < channels_; ++c) narrow[c] = float_to_bf16(input[c]);
}

}  // namespace kvfs::model::cpu
