// Launches of the generated path's fast kernels: six a layer. Activations are of the weights' type,
// bf16 or fp16 (void* here); KV is bf16.
//
//   begin_step → [ project (q, k, v) → attend (two) → add_product (out) → gate → add_product (down)
//   ]… → project (logits)
//
// Pointers are device memory; every launch is asynchronous on `stream`, may overlap the one before
// (chain.cuh) and returns the launch's own error. Bits: a row's results depend on its own inputs
// alone — not on how many rows there are, which pages they share or where those lie.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "engine/model/cuda/kernels.h"

namespace kvfs::model::cuda {

inline constexpr int kTileOutputs = 16;  // of one block of a product
inline constexpr int kPageTokens = 256;  // keys whose partial attention is one fixed sum

// kInt4: GGUF's Q4_0; kInt4Min: Q4_1 and Q4_K; kInt8: Q8_0. With kF16 activations are fp16, with
// all others bf16.
enum class WeightKind : std::uint8_t { kBf16, kInt4, kInt4Min, kInt8, kF16 };
constexpr bool is_packed(WeightKind kind) {
  return kind != WeightKind::kBf16 && kind != WeightKind::kF16;
}

// [outputs][inputs]; inputs % 8 == 0. Packed kinds as decode_packed.h says, and paired if and only
// if they are gate()'s.
struct Matrix {
  const void* data;
  int outputs;
  int inputs;
  WeightKind kind = WeightKind::kBf16;
  bool paired = false;
};

// Calls `with` for the type of activations, with a null pointer to one.
template <class F>
auto for_activations(bool fp16, F&& with) {
  return fp16 ? with(static_cast<__half*>(nullptr)) : with(static_cast<__nv_bfloat16*>(nullptr));
}

// Rows in front of an RMSNorm: its weight is multiplied in, its scale, which is one number a row,
// is applied to the products, whose weights need not wait for it.
struct NormRows {
  void* x;         // [rows][width] residual · norm weight
  float* squares;  // [rows][width / kTileOutputs] sums of the residual's squares
};

// residual [rows][width] = table[tokens]; next = its NormRows under norm_weight; turns [rows][head
// width / 2] = cosine and sine of the row's position · frequencies.
struct StepRows {
  const RowPlace* places;      // [rows]
  const std::int32_t* tokens;  // [rows]; −1 − i: drawn[i], which an earlier step drew
  int rows;
  const std::int32_t* drawn = nullptr;
};
cudaError_t begin_step(const void* table, const StepRows& step, int width, const float* norm_weight,
                       const float* frequencies, int head_width, float* residual, NormRows next,
                       float2* turns, cudaStream_t stream, bool fp16 = false);

// Room for several rows' x as integers, which packed weights are multiplied by (fixed_point.cuh);
// of one row, and of bf16 weights, none is wanted.
struct FixedRows {
  std::uint8_t* pieces;  // [rows][inputs, filled up to whole chunks] of two bytes
  float* scales;         // [rows][chunks][8]
};
constexpr std::size_t fixed_chunks(int inputs) {  // of all rows
  return static_cast<std::size_t>(kMaxBatch) * static_cast<std::size_t>((inputs + 127) / 128);
}
constexpr std::size_t fixed_piece_bytes(int inputs) { return fixed_chunks(inputs) * 256; }
constexpr std::size_t fixed_scale_floats(int inputs) { return fixed_chunks(inputs) * 8; }

// y[r][outputs] = w · norm(in[r]).
cudaError_t project(const Matrix& w, NormRows in, float epsilon, int rows, float* y,
                    cudaStream_t stream, FixedRows room = {});
// out[r][i] = silu(g) · u, of g and u = rows i and outputs / 2 + i of w · norm(in[r]); outputs / 2
// % 8 == 0.
cudaError_t gate(const Matrix& w, NormRows in, float epsilon, int rows, void* out,
                 cudaStream_t stream, FixedRows room = {});
// residual[r] += w · x[r]; next = its NormRows under norm_weight; outputs % kTileOutputs == 0.
cudaError_t add_product(const Matrix& w, const void* x, int rows, float* residual,
                        const float* norm_weight, NormRows next, cudaStream_t stream,
                        FixedRows room = {});

// A page of 256 positions that all rows of `rows` see to its end, or that is one row's last: rows
// of a common history read it once.
struct PageWork {
  std::int32_t page;   // index in each of the rows' histories
  std::uint32_t rows;  // bit r: row r
};

// Entries of a work list: pages of several rows first, then those of one. Entries with rows == 0
// are none.
struct WorkRoom {
  int shared;
  int single;
};

struct AttentionScratch {
  float* values;  // [rows][heads][pages][width]
  float2* sums;   // [rows][heads][pages] the greatest score and the sum of weights
  int pages;      // ≥ of the longest row, position / kPageTokens + 1
};
constexpr std::size_t attention_scratch_floats(int rows, const HeadShape& shape, int pages) {
  return static_cast<std::size_t>(rows) * static_cast<std::size_t>(shape.heads) *
         static_cast<std::size_t>(pages) * static_cast<std::size_t>(shape.width + 2);
}

// Turns q and k, stores the new k and v in their pages, and attends: out[r][heads · width].
// qkv [rows][(heads + 2·kv_heads) · width]; work lists every page of every row once.
cudaError_t attend(const float* qkv, const float2* turns, const StepRows& step,
                   const PageWork* work, WorkRoom room, HeadShape shape, KvPlace kv,
                   AttentionScratch scratch, void* out, cudaStream_t stream, bool fp16 = false);

// Its second half: the pages of each head in scratch, put together.
cudaError_t join_pages(const StepRows& step, HeadShape shape, AttentionScratch scratch, void* out,
                       cudaStream_t stream, bool fp16 = false);

}  // namespace kvfs::model::cuda
