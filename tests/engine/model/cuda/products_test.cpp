// The read path's products: right, and of the same bits in any number of rows.
#include "engine/model/cuda/products.h"

#include <ATen/Functions.h>
#include <gtest/gtest.h>

#include "tests/engine/model/cuda/kernel_fixture.h"

namespace kvfs::model::cuda {
namespace {

class CudaProducts : public CudaKernels<__nv_bfloat16>,
                     public testing::WithParamInterface<at::ScalarType> {};
INSTANTIATE_TEST_SUITE_P(Types, CudaProducts, testing::Values(at::kBFloat16, at::kHalf),
                         [](const auto& of) { return of.param == at::kHalf ? "fp16" : "bf16"; });

TEST_P(CudaProducts, GiveARowTheSameBitsInAnyNumberOfRows) {
  const auto narrow = at::TensorOptions().dtype(GetParam()).device(at::kCUDA);
  constexpr std::int64_t kRows = RowProduct::kMost;
  struct Size {
    std::int64_t outputs, inputs;
  };
  for (const auto& [outputs, inputs] : {Size{192, 576}, Size{2048, 8192}, Size{3072, 2048}}) {
    for (const bool adds : {false, true}) {
      const at::Tensor w = at::randn({outputs, inputs}, narrow);
      const at::Tensor x = at::randn({kRows, inputs}, narrow);
      const auto type = adds ? at::kFloat : GetParam();
      const at::Tensor before = at::randn({kRows, outputs}, narrow).to(type);
      const RowProduct product(w, at::empty_like(x), before.clone(), adds, 512);
      const auto in_runs_of = [&](std::int64_t rows) {
        at::Tensor out = before.clone();
        for (std::int64_t at = 0; at < kRows; at += rows) {
          product.run(w, x.select(0, at).data_ptr(), rows, out.select(0, at).data_ptr());
        }
        return out;
      };
      ASSERT_TRUE(product.has(512));
      const at::Tensor whole = in_runs_of(512);
      at::Tensor right = x.to(at::kDouble).matmul(w.to(at::kDouble).t());
      if (adds) right = right + before.to(at::kDouble);
      const double off = (whole.to(at::kDouble) - right).abs().max().item<double>();
      EXPECT_LT(off, (adds ? 1e-4 : 5e-3) * right.abs().max().item<double>());
      for (std::int64_t rows = RowProduct::kFewest; rows <= kRows; rows *= 2) {
        if (!product.has(rows)) continue;
        EXPECT_TRUE(at::equal(in_runs_of(rows), whole)) << rows << " rows";
      }
    }
  }
}

}  // namespace
}  // namespace kvfs::model::cuda
