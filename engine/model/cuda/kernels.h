// Launches of this folder's kernels. Pointers are device memory; every launch is asynchronous on
// `stream` and returns the launch's own error. T is float (reference) or __nv_bfloat16 (fast).
//
// Bits: each output row is computed in an order that depends on nothing but its own inputs — not on
// how many rows a launch has, nor on where its pages lie.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace kvfs::model::cuda {

inline constexpr int kMaxBatch = 16;  // rows of one linear_rows launch

// One row of work for rope_and_store and attention.
struct RowPlace {
  std::int32_t position;    // absolute position of the row's token
  std::int32_t first_page;  // index into the table of page addresses, of the row's sequence
};

// A layer's place inside a page: [layers][key, value][kv_heads][256][width].
struct KvPlace {
  void* const* pages;         // page addresses of all sequences, one after the other
  std::int64_t key_offset;    // elements from a page's beginning to this layer's keys
  std::int64_t value_offset;  // … and values
};

struct HeadShape {
  int heads;
  int kv_heads;
  int width;  // 64 or 128
};

// out[r][width] = table[tokens[r]][width] as fp32.
template <class T>
cudaError_t embed(const T* table, const std::int32_t* tokens, int rows, int width, float* out,
                  cudaStream_t stream);

// out[r] = x[r] / rms(x[r]) · weight (fp32 sums over width).
template <class T>
cudaError_t rms_norm(const float* x, const float* weight, int rows, int width, float epsilon,
                     T* out, cudaStream_t stream);

// y[r][n] (+)= Σ_k w[n][k] · x[r][k], fp32 accumulation; rows ≤ kMaxBatch, inputs % 8 == 0.
template <class T>
cudaError_t linear_rows(const T* w, const T* x, int rows, int outputs, int inputs, bool add,
                        float* y, cudaStream_t stream);

// qkv [rows][(heads + 2·kv_heads)·width] fp32: turns q (kept in place) and k by RoPE (half-split
// pairs; frequencies [width / 2] in radians a position), rounds k and v to T and stores them.
template <class T>
cudaError_t rope_and_store(float* qkv, const float* frequencies, const RowPlace* places, int rows,
                           HeadShape shape, KvPlace kv, cudaStream_t stream);

// out[r][heads·width] = causal attention of row r's queries over positions 0 … its own. Rows of one
// sequence (reading) are neighbours at ascending positions; else each row has its own (generating).
// partial: fp32 scratch, attention_scratch() floats.
template <class T>
cudaError_t attention(const float* qkv, const RowPlace* places, int rows, bool one_sequence,
                      int most_pages, HeadShape shape, KvPlace kv, float* partial, T* out,
                      cudaStream_t stream);
std::size_t attention_scratch(int rows, int most_pages, HeadShape shape);

// out[r][i] = silu(gate_up[r][i]) · gate_up[r][ffn + i].
template <class T>
cudaError_t swiglu(const float* gate_up, int rows, int ffn, T* out, cudaStream_t stream);

// x += y over count elements.
cudaError_t add(float* x, const float* y, std::int64_t count, cudaStream_t stream);

}  // namespace kvfs::model::cuda
