#include "engine/model/cuda/products.h"

#include <ATen/cuda/CUDAContext.h>
#include <ATen/cuda/CUDAEvent.h>
#include <cublasLt.h>

#include <algorithm>
#include <bit>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace kvfs::model::cuda {
namespace {

constexpr int kTimedRows = 512;  // from here on algorithms are told apart by the clock
constexpr int kTimes = 3;
constexpr int kCandidates = 16;

void check(cublasStatus_t status) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw std::runtime_error(std::string("cuBLAS: ") + cublasLtGetStatusString(status));
}

template <auto kDestroy>
struct Destroy {
  template <class T>
  void operator()(T* each) const {
    kDestroy(each);
  }
};
using Operation = std::unique_ptr<cublasLtMatmulDescOpaque_t, Destroy<cublasLtMatmulDescDestroy>>;
using Layout = std::unique_ptr<cublasLtMatrixLayoutOpaque_t, Destroy<cublasLtMatrixLayoutDestroy>>;
using Preference =
    std::unique_ptr<cublasLtMatmulPreferenceOpaque_t, Destroy<cublasLtMatmulPreferenceDestroy>>;

Layout layout(cudaDataType_t type, std::int64_t width, std::int64_t rows) {
  cublasLtMatrixLayout_t out = nullptr;
  check(cublasLtMatrixLayoutCreate(&out, type, static_cast<std::uint64_t>(width),
                                   static_cast<std::uint64_t>(rows), width));
  return Layout(out);
}

// Columns are cuBLAS's rows: outᵀ [outputs, rows] = w [outputs, inputs] · inᵀ [inputs, rows].
struct Described {
  Described(std::int64_t outputs, std::int64_t inputs, std::int64_t rows, bool fp16, bool fp32)
      : w(layout(fp16 ? CUDA_R_16F : CUDA_R_16BF, inputs, outputs)),
        in(layout(fp16 ? CUDA_R_16F : CUDA_R_16BF, inputs, rows)),
        out(layout(fp32   ? CUDA_R_32F
                   : fp16 ? CUDA_R_16F
                          : CUDA_R_16BF,
                   outputs, rows)) {
    cublasLtMatmulDesc_t made = nullptr;
    check(cublasLtMatmulDescCreate(&made, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    operation.reset(made);
    const cublasOperation_t transposed = CUBLAS_OP_T;
    check(cublasLtMatmulDescSetAttribute(made, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                         sizeof(transposed)));
  }
  Operation operation;
  Layout w, in, out;
};

// That need no workspace, so that none adds up parts of the inputs there; likeliest first.
template <class Algorithm>
std::vector<Algorithm> candidates(const Described& of) {
  cublasLtMatmulPreference_t made = nullptr;
  check(cublasLtMatmulPreferenceCreate(&made));
  const Preference preference(made);
  const std::size_t none = 0;
  check(cublasLtMatmulPreferenceSetAttribute(made, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &none,
                                             sizeof(none)));
  std::array<cublasLtMatmulHeuristicResult_t, kCandidates> found{};
  int count = 0;
  check(cublasLtMatmulAlgoGetHeuristic(at::cuda::getCurrentCUDABlasLtHandle(), of.operation.get(),
                                       of.w.get(), of.in.get(), of.out.get(), of.out.get(), made,
                                       kCandidates, found.data(), &count));
  std::vector<Algorithm> out;
  for (int i = 0; i < count; ++i) {
    out.push_back(std::bit_cast<Algorithm>(found[static_cast<std::size_t>(i)].algo));
  }
  return out;
}

}  // namespace

RowProduct::RowProduct(const at::Tensor& w, const at::Tensor& in, const at::Tensor& out, bool adds,
                       int grid)
    : outputs_(w.size(0)),
      inputs_(w.size(1)),
      fp16_(w.scalar_type() == at::kHalf),
      fp32_(out.scalar_type() == at::kFloat),
      adds_(adds) {
  const at::Tensor x = at::empty_like(in).normal_();
  const auto of = [&](std::int64_t rows) {
    return candidates<Algorithm>(Described(outputs_, inputs_, rows, fp16_, fp32_));
  };
  const std::vector<Algorithm> algorithms = of(grid);
  const auto first = std::ranges::find_if(
      algorithms, [&](const auto& each) { return in_runs_of(grid, each, w, x, out); });
  if (first == algorithms.end()) {
    throw std::runtime_error("cuBLAS has no product that needs no workspace");
  }
  const at::Tensor expected = out.clone();
  for (std::int64_t rows = kFewest; rows <= in.size(0); rows *= 2) {
    float least = std::numeric_limits<float>::infinity();
    for (const auto& algorithm : of(rows)) {
      if (!in_runs_of(rows, algorithm, w, x, out) || !at::equal(out, expected)) continue;
      const float time = rows < kTimedRows ? 0.0F : milliseconds(algorithm, w, x, rows, out);
      if (time < least) algorithms_[place(rows)] = algorithm;
      least = std::min(least, time);
      if (rows < kTimedRows) break;
    }
  }
}

bool RowProduct::launch(const Algorithm& algorithm, const void* w, const void* in,
                        std::int64_t rows, void* out, bool adds) const {
  const Described of(outputs_, inputs_, rows, fp16_, fp32_);
  const auto choice = std::bit_cast<cublasLtMatmulAlgo_t>(algorithm);
  const float one = 1.0F;
  const float kept = adds ? 1.0F : 0.0F;
  return cublasLtMatmul(at::cuda::getCurrentCUDABlasLtHandle(), of.operation.get(), &one, w,
                        of.w.get(), in, of.in.get(), &kept, out, of.out.get(), out, of.out.get(),
                        &choice, nullptr, 0,
                        at::cuda::getCurrentCUDAStream()) == CUBLAS_STATUS_SUCCESS;
}

bool RowProduct::in_runs_of(std::int64_t rows, const Algorithm& algorithm, const at::Tensor& w,
                            const at::Tensor& in, const at::Tensor& out) const {
  for (std::int64_t at = 0; at < in.size(0); at += rows) {
    const bool done = launch(algorithm, w.data_ptr(), in.narrow(0, at, rows).data_ptr(), rows,
                             out.narrow(0, at, rows).data_ptr(), false);
    if (!done) return false;
  }
  return true;
}

float RowProduct::milliseconds(const Algorithm& algorithm, const at::Tensor& w,
                               const at::Tensor& in, std::int64_t rows,
                               const at::Tensor& out) const {
  at::cuda::CUDAEvent begin(cudaEventDefault);
  at::cuda::CUDAEvent end(cudaEventDefault);
  begin.record();
  for (int i = 0; i < kTimes; ++i) {
    launch(algorithm, w.data_ptr(), in.data_ptr(), rows, out.data_ptr(), adds_);  // it did before
  }
  end.record();
  end.synchronize();
  return begin.elapsed_time(end);
}

void RowProduct::run(const at::Tensor& w, const void* in, std::int64_t rows, void* out) const {
  if (launch(*algorithms_[place(rows)], w.data_ptr(), in, rows, out, adds_)) return;
  throw std::runtime_error("cuBLAS: a product that was tried does not run any more");
}

}  // namespace kvfs::model::cuda
