// The only file of the CPU model that knows libtorch: fp32 GEMMs of the reference mode.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cstring>

#include "engine/model/cpu/matrix.h"
#include "engine/model/dequantize.h"

namespace kvfs::model::cpu {
namespace {

// A row's bits depend on the number of rows of its GEMM: so that number is always the same. One
// generated row is bound by the memory, and padding would only add arithmetic.
constexpr int kReadRows = 64;
constexpr int kGeneratedRows = 1;
// Outputs of one GEMM. The pool's threads take pieces and libtorch's own stay out of it: its
// shapes, and so its bits, cannot depend on the number of threads, and nobody waits in OpenMP's
// spin.
constexpr int kPiece = 96;

class TorchMatrix final : public Matrix {
 public:
  TorchMatrix(const Rows& rows, ForkJoin& pool)
      : weights_(at::empty({rows.count(), rows.inputs}, at::kFloat)) {
    const auto inputs = static_cast<std::size_t>(rows.inputs);
    float* to = weights_.data_ptr<float>();
    pool.for_each(rows.count(), [&](int row, int) {
      Bytes scratch;
      dequantize_row(rows.type(), rows.row(row, scratch),
                     {to + static_cast<std::size_t>(row) * inputs, inputs});
    });
  }

  bool wants_quantized() const override { return false; }
  std::uint64_t bytes() const override { return weights_.nbytes(); }

  Status multiply(const Activations& in, Output out, ForkJoin& pool) const override {
    const auto outputs = static_cast<int>(weights_.size(0));
    std::atomic<bool> failed = false;
    std::string why;
    pool.for_each((outputs + kPiece - 1) / kPiece, [&](int piece, int) {
      try {
        const at::InferenceMode guard;
        const int grid = in.reading ? kReadRows : kGeneratedRows;
        for (int row = 0; row < in.rows; row += grid)
          multiply_piece(in, row, grid, piece * kPiece, out);
      } catch (const std::exception& error) {
        if (!failed.exchange(true)) why = error.what();
      }
    });
    if (failed) return fail(ErrorCode::kInternal, "multiply by a weight matrix", why);
    return {};
  }

 private:
  void multiply_piece(const Activations& in, int row, int grid, int begin, Output out) const {
    const auto inputs = static_cast<std::size_t>(weights_.size(1));
    const std::int64_t outputs = std::min<std::int64_t>(kPiece, weights_.size(0) - begin);
    const int rows = std::min(grid, in.rows - row);
    at::Tensor x = at::zeros({grid, weights_.size(1)}, at::kFloat);
    std::memcpy(x.data_ptr<float>(), in.values + static_cast<std::size_t>(row) * inputs,
                static_cast<std::size_t>(rows) * inputs * sizeof(float));
    const at::Tensor y = at::linear(x, weights_.narrow(0, begin, outputs));
    for (int r = 0; r < rows; ++r) {
      const float* from = y.const_data_ptr<float>() + r * outputs;
      float* to = out.y + static_cast<std::size_t>(row + r) * out.stride + begin;
      for (std::int64_t i = 0; i < outputs; ++i) to[i] = out.accumulate ? to[i] + from[i] : from[i];
    }
  }

  at::Tensor weights_;  // [outputs, inputs]
};

}  // namespace

Result<std::unique_ptr<Matrix>> torch_matrix(const Rows& rows, ForkJoin& pool) {
  try {
    return std::make_unique<TorchMatrix>(rows, pool);
  } catch (const std::exception& error) {
    return fail(ErrorCode::kTooLarge, "dequantize " + rows.slices.front().tensor->name,
                error.what());
  }
}

void keep_torch_single() { at::set_num_threads(1); }

}  // namespace kvfs::model::cpu
