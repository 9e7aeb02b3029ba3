// cuBLAS's products of the read path, each in several numbers of rows, all of which give a row the
// same bits: algorithms that do not split the inputs add them in one order, whatever their tiles.
// That they do is tried on random rows when a product is made. Engine thread only; throws
// libtorch's exceptions and std::runtime_error.
#pragma once

#include <ATen/ATen.h>

#include <array>
#include <bit>
#include <cstdint>
#include <optional>

namespace kvfs::model::cuda {

class RowProduct {
 public:
  static constexpr int kFewest = 32;  // rows; fewer take no less time
  static constexpr int kMost = 8192;

  // For weights like w [outputs, inputs] and rows like those of in [rows, inputs], both bf16 or both
  // fp16; out [rows, outputs] is fp32 or as they are, and of other contents afterwards; rows at a
  // time, a power of two up to kMost, or fewer. adds: out += instead of =. grid: the rows that set
  // the bits.
  RowProduct(const at::Tensor& w, const at::Tensor& in, const at::Tensor& out, bool adds, int grid);

  // Whether kFewest · 2ⁿ = rows have their algorithm; `grid` rows do.
  bool has(std::int64_t rows) const { return algorithms_[place(rows)].has_value(); }
  // Memory of rows · outputs and rows · inputs, on the current stream.
  void run(const at::Tensor& w, const void* in, std::int64_t rows, void* out) const;

 private:
  using Algorithm = std::array<std::uint64_t, 8>;  // cublasLtMatmulAlgo_t's bits
  static constexpr std::size_t kShapes =
      std::countr_zero(unsigned{kMost}) - std::countr_zero(unsigned{kFewest}) + 1;
  static std::size_t place(std::int64_t rows) {
    return static_cast<std::size_t>(std::countr_zero(static_cast<std::uint64_t>(rows)) -
                                    std::countr_zero(unsigned{kFewest}));
  }
  // False where the algorithm cannot.
  bool launch(const Algorithm& algorithm, const void* w, const void* in, std::int64_t rows,
              void* out, bool adds) const;
  // out = all rows of `in`, `rows` at a time; false where the algorithm cannot.
  bool in_runs_of(std::int64_t rows, const Algorithm& algorithm, const at::Tensor& w,
                  const at::Tensor& in, const at::Tensor& out) const;
  float milliseconds(const Algorithm& algorithm, const at::Tensor& w, const at::Tensor& in,
                     std::int64_t rows, const at::Tensor& out) const;

  std::int64_t outputs_;
  std::int64_t inputs_;
  bool fp16_;  // weights and rows
  bool fp32_;  // out
  bool adds_;
  std::array<std::optional<Algorithm>, kShapes> algorithms_;
};

}  // namespace kvfs::model::cuda
