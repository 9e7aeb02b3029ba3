// Launches of the read path's fast kernels, around cuBLAS's products; activations (void*) are bf16
// or fp16 as the weights are, queries and KV bf16:
//
//   begin_rows → [ qkv product → turn_and_store → attend_rows → out product, added → norm_rows
//                → gate, up product → gate_rows → down product, added → norm_rows ]…
//
// A token at position p sits in row p % kGridRows of every matrix. Pointers are device memory;
// every launch is asynchronous on `stream` and returns the launch's own error. Bits: a row's
// results depend on its own inputs and position alone — not on which other rows a launch has.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "engine/model/cuda/decode.h"

namespace kvfs::model::cuda {

// Rows first … first + count − 1 of a grid, of the tokens at positions `position` … of a sequence.
struct ReadRows {
  int first;
  int count;
  int position;  // ≡ first, modulo the grid
};

// residual[r] = table[tokens[r - first]] as fp32, normed[r] = its RMSNorm · norm_weight.
cudaError_t begin_rows(const void* table, const std::int32_t* tokens, ReadRows rows, int width,
                       const float* norm_weight, float epsilon, float* residual, void* normed,
                       cudaStream_t stream, bool fp16 = false);

// normed[r] = residual[r]'s RMSNorm · norm_weight.
cudaError_t norm_rows(const float* residual, ReadRows rows, int width, const float* norm_weight,
                      float epsilon, void* normed, cudaStream_t stream, bool fp16 = false);

// qkv [grid][(heads + 2·kv_heads) · width]: turns queries and keys by RoPE (half-split pairs;
// frequencies [width / 2] in radians a position), stores keys and values in their pages, and leaves
// queries[r][heads · width], ready for attend_rows. kv's pages are the sequence's, from its first.
cudaError_t turn_and_store(const float* qkv, const float* frequencies, ReadRows rows,
                           HeadShape shape, KvPlace kv, __nv_bfloat16* queries,
                           cudaStream_t stream);

// rows_of [grid][heads · width]: from turn_and_store's queries to their attention over positions 0
// … their own. Values of the launch's later rows must be numbers; what lies past its newest row is
// not looked at. fp16: what it leaves. newest_instructions: Hopper's own where there are any; tests
// and benchmarks compare.
cudaError_t attend_rows(__nv_bfloat16* rows_of, ReadRows rows, HeadShape shape, KvPlace kv,
                        cudaStream_t stream, bool newest_instructions = true, bool fp16 = false);

// out[r][i] = silu(gate_up[r][i]) · gate_up[r][ffn + i]; ffn % 8 == 0.
cudaError_t gate_rows(const void* gate_up, ReadRows rows, int ffn, void* out, cudaStream_t stream,
                      bool fp16 = false);

// One row, [width], as the generated path's products want it.
cudaError_t last_row(const float* residual, int width, const float* norm_weight, NormRows out,
                     cudaStream_t stream, bool fp16 = false);

}  // namespace kvfs::model::cuda
