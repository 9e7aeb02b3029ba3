// Launches of the general kernels: any family, whole and sparse pages, both modes. Pointers are
// device memory; every launch is asynchronous on `stream` and returns the launch's own error. T, of
// weights and of what products take, is float (reference), __nv_bfloat16 or __half (fast); keys,
// values and what convolutions keep are of KvOf<T>.
//
// Bits: each output row is computed in an order that depends on nothing but its own inputs — not on
// how many rows a launch has, where its pages lie, or whether they are whole or sparse.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "engine/model/activation.h"

namespace kvfs::model::cuda {

inline constexpr int kMaxBatch = 16;  // rows of one linear_rows launch

// A mode has one type of KV, whatever the weights: a state goes on on any device, in any model
// file.
template <class T>
using KvOf = std::conditional_t<std::is_same_v<T, __half>, __nv_bfloat16, T>;

// One row of work for rope_and_store and attention.
struct RowPlace {
  std::int32_t position;    // absolute position of the row's token
  std::int32_t first_page;  // index into the table of page addresses, of the row's sequence
};

// A layer's place inside a page: [layers][key, value][kv_heads][256][width]. General kernels know
// sparse pages too, by their addresses (sparse_page.h).
struct KvPlace {
  void* const* pages;         // page addresses of all sequences, one after the other
  std::int64_t key_offset;    // elements from a page's beginning to this layer's keys
  std::int64_t value_offset;  // … and values
};

struct HeadShape {
  int heads;
  int kv_heads;
  int width;  // a multiple of 8; of the fast kernels 64 or 128
};
inline constexpr int kMostGroup = 32;       // query heads of a key head
inline constexpr int kMostHeadWidth = 512;  // what a block's shared memory holds

// out[r][width] = scale · table[tokens[r]][width] as fp32.
template <class T>
cudaError_t embed(const T* table, const std::int32_t* tokens, int rows, int width, float scale,
                  float* out, cudaStream_t stream);
// out[r][width] += table[position of r][width].
cudaError_t add_positions(const float* table, const RowPlace* places, int rows, int width,
                          float* out, cudaStream_t stream);

// How a vector of `length` is normed. weight, bias: [length] fp32; no bias: null.
struct NormRule {
  bool layer;  // LayerNorm, else RMSNorm
  int length;
  float epsilon;
  const float* weight;
  const float* bias;
};
// `groups` neighbouring vectors of each row; rows are `stride` apart in both. x and out may be the
// same.
template <class T>
cudaError_t norm(const NormRule& rule, const float* x, int rows, int groups, std::int64_t stride,
                 T* out, cudaStream_t stream);

// y[r][n] (+)= Σ_k w[n][k] · x[r][k], fp32 accumulation; rows ≤ kMaxBatch, inputs % 8 == 0.
template <class T>
cudaError_t linear_rows(const T* w, const T* x, int rows, int outputs, int inputs, bool add,
                        float* y, cudaStream_t stream);

// y[r][n] += bias[n].
cudaError_t add_bias(const float* bias, int rows, int width, float* y, cudaStream_t stream);

// Pairs (i, i + pairs) turn by position · frequencies[i] radians; from position late_from on by
// late[i]. No pairs: nothing turns.
struct Turning {
  const float* frequencies;
  int pairs;
  const float* late = nullptr;
  int late_from = 0;
  float magnitude = 1.0F;
};
// qkv [rows][(heads + 2·kv_heads)·width] fp32: turns q (kept in place) and k by RoPE, rounds k and
// v to T, here that of KV, and stores them.
template <class T>
cudaError_t rope_and_store(float* qkv, const Turning& turning, const RowPlace* places, int rows,
                           HeadShape shape, KvPlace kv, cudaStream_t stream,
                           std::uint32_t only = 0);

// A gated short convolution (architecture.h, Convolution), and where its inputs are kept.
struct ConvolutionRule {
  int channels;
  int taps;
  const float* weights;  // [taps][channels], the newest last
  const float* bias;     // [channels]
  std::int64_t inputs;   // elements from a page's beginning to [taps][channels]; slot s: s % taps
};
// gates [rows][3 · channels] fp32: B | C | z. out[r][channels] = C · (bias + Σ tap · input), the
// taps in ascending order, inputs B · z being rounded to KvOf<T> before anything reads them: those
// of positions before the rows' come from the pages. Then the pages keep the rows' inputs. Rows of
// one sequence stand one behind the other.
template <class T>
cudaError_t short_convolution(const float* gates, const RowPlace* places, int rows,
                              const ConvolutionRule& rule, void* const* pages, T* out,
                              cudaStream_t stream);

struct AttentionRule {
  float scale;     // of scores
  float cap = 0;   // score → cap · tanh(score / cap); 0: none
  int window = 0;  // keys a row sees, itself included; 0: all
};
// Which weights are kept: the sum of all; or the highest of those that entries at positions begin …
// end − 1 are given by a softmax over them, the first `sinks` and what is from `after` on.
struct WeightRule {
  float* sums = nullptr;  // scratch, weight_scratch() floats
  bool highest = false;
  int sinks = 0;
  int begin = 0;
  int end = 0;
  int after = 0;
};
// out[r][heads·width] = row r's queries' attention to their sequence's entries at positions up to
// its own. partial: fp32 scratch, attention_scratch() floats. only: rope_and_store's. watched: of
// attention_weights() to follow; it changes no bit of out.
template <class T>
cudaError_t attention(const float* qkv, const RowPlace* places, int rows, int most_pages,
                      HeadShape shape, const AttentionRule& rule, KvPlace kv, float* partial,
                      T* out, cudaStream_t stream, std::uint32_t only = 0,
                      const WeightRule& watched = {});
std::size_t attention_scratch(int rows, int most_pages, HeadShape shape);
std::size_t weight_scratch(int rows, int most_pages, HeadShape shape);

// After attention() of these rows, of one sequence: the softmax weights that their queries gave
// each entry go into weights [pages][heads][256 slots], rows in ascending order.
// T: of KV.
template <class T>
cudaError_t attention_weights(const float* qkv, const RowPlace* places, int rows, int most_pages,
                              HeadShape shape, const AttentionRule& rule, KvPlace kv,
                              const WeightRule& watched, const float* partial, float* weights,
                              cudaStream_t stream);

// out[r][i] = f(x[r][i]) · x[r][width + i], or f(x[r][i]).
template <class T>
cudaError_t activate(Activation activation, bool gated, const float* x, int rows, int width, T* out,
                     cudaStream_t stream);

// out = x, of type T.
template <class T>
cudaError_t round_to(const float* x, std::int64_t count, T* out, cudaStream_t stream);
// x += y over count elements.
cudaError_t add(float* x, const float* y, std::int64_t count, cudaStream_t stream);
// x → cap · tanh(x / cap).
cudaError_t soft_cap(float* x, float cap, std::int64_t count, cudaStream_t stream);

// A row that chose an expert, and with which share.
struct ExpertVisit {
  std::int32_t row;
  float share;
};
// out[i] = x[visits[i].row].
template <class T>
cudaError_t gather_rows(const T* x, const ExpertVisit* visits, int count, int width, T* out,
                        cudaStream_t stream);
// y[visits[i].row] += share · x[i]; no row comes twice.
cudaError_t scatter_rows(const float* x, const ExpertVisit* visits, int count, int width, float* y,
                         cudaStream_t stream);

// Copies entries of a page into a sparse one. from: by entry of the target, the row of its key and
// of its value in the source, counted in rows of `row_bytes` from the source's beginning.
struct EntrySource {
  std::int64_t key;
  std::int64_t value;
};
cudaError_t gather_entries(const void* source, const EntrySource* from, std::int64_t entries,
                           int row_bytes, void* keys, void* values, cudaStream_t stream);

}  // namespace kvfs::model::cuda
