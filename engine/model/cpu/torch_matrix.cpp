// The only file of the CPU model that knows libtorch: fp32 GEMMs of the reference mode.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstring>

#include "engine/model/cpu/matrix.h"
#include "engine/model/dequantize.h"

namespace kvfs::model::cpu {
namespace {

constexpr int kReadRows = 64;
constexpr int kGeneratedRows = 16;

class TorchMatrix final : public Matrix {
 public:
  TorchMatrix(const Rows& rows, ForkJoin& pool)
      : weights_(at::empty({rows.count(), rows.inputs()}, at::kFloat)) {
    const auto inputs = static_cast<std::size_t>(rows.inputs());
    float* to = weights_.data_ptr<float>();
    pool.for_each(rows.count(), [&](int row, int) {
      dequantize_row(rows.type(), rows.row(row), {to + static_cast<std::size_t>(row) * inputs, inputs});
    });
  }

  bool wants_quantized() const override { return false; }
  std::uint64_t bytes() const override { return weights_.nbytes(); }

  Status multiply(const Activations& in, Output out, ForkJoin&) const override {
    try {
      const at::InferenceMode guard;
      const int grid = in.rows <= kGeneratedRows && !in.reading ? kGeneratedRows : kReadRows;
      for (int row = 0; row < in.rows; row += grid) multiply_grid(in, row, grid, out);
      return {};
    } catch (const std::exception& error) {
      return fail(ErrorCode::kInternal, "multiply by a weight matrix", error.what());
    }
  }

 private:
  void multiply_grid(const Activations& in, int row, int grid, Output out) const {
    const auto inputs = static_cast<std::size_t>(weights_.size(1));
    const auto outputs = static_cast<std::size_t>(weights_.size(0));
    const int rows = std::min(grid, in.rows - row);
    at::Tensor x = at::zeros({grid, weights_.size(1)}, at::kFloat);
    std::memcpy(x.data_ptr<float>(), in.values + static_cast<std::size_t>(row) * inputs,
                static_cast<std::size_t>(rows) * inputs * sizeof(float));
    const at::Tensor y = at::linear(x, weights_);
    for (int r = 0; r < rows; ++r) {
      const float* from = y.const_data_ptr<float>() + static_cast<std::size_t>(r) * outputs;
      float* to = out.y + static_cast<std::size_t>(row + r) * out.stride;
      for (std::size_t i = 0; i < outputs; ++i) to[i] = out.accumulate ? to[i] + from[i] : from[i];
    }
  }

  at::Tensor weights_;  // [outputs, inputs]
};

}  // namespace

Result<std::unique_ptr<Matrix>> torch_matrix(const Rows& rows, ForkJoin& pool) {
  try {
    return std::make_unique<TorchMatrix>(rows, pool);
  } catch (const std::exception& error) {
    return fail(ErrorCode::kTooLarge, "dequantize " + rows.sources.front().tensor->name, error.what());
  }
}

void set_torch_threads(int threads) { at::set_num_threads(threads); }

}  // namespace kvfs::model::cpu
