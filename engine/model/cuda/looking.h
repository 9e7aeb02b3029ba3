// Launches of what pruning asks beside attention: which weights queries to come are expected to
// give, norms, and keys turned to other positions. As kernels.h's: T is float or __nv_bfloat16,
// every launch is asynchronous and returns its own error, and what it says of an entry depends on
// that entry alone, not on where it lies.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "engine/model/cuda/kernels.h"

namespace kvfs::model::cuda {

// Sums over a layer's queries before they are turned, of what lies about `origin`.
struct QuerySums {
  float* origin = nullptr;  // [heads][width]: the mean of the first rows
  double* first;            // [heads][width]
  double* second;           // [heads][width][width]
};
// Adds the queries of rows of qkv; the sums are zeros before the first of them.
cudaError_t add_queries(const float* qkv, int rows, HeadShape shape, bool first_rows,
                        QuerySums sums, cudaStream_t stream);

// What makes of a key the exponent that queries to come are expected to give it: key · (matrix ·
// key + vector). arXiv 2510.00636; kvpress, expected_attention_press.py.
struct ExpectedQueries {
  float* matrix;  // [heads][width][width]
  float* vector;  // [heads][width]
  double* turns;  // scratch, [2][pairs]
};
// Of queries normally distributed as the `count` that were summed, turned as on the average of the
// 512 positions from `first` on. scale: of scores.
cudaError_t expect_queries(QuerySums sums, std::int64_t count, HeadShape shape, float scale,
                           const Turning& turning, int first, ExpectedQueries to,
                           cudaStream_t stream);

// out [pages][heads][256 slots] = the exponents of the entries in a table of pages.
template <class T>
cudaError_t expected_exponents(ExpectedQueries queries, int pages, HeadShape shape, KvPlace kv,
                               float* out, cudaStream_t stream);
// out [pages][kv_heads][256 slots] = the L2 norms of their keys, or of their values.
template <class T>
cudaError_t entry_norms(bool of_values, int pages, HeadShape shape, KvPlace kv, float* out,
                        cudaStream_t stream);

// Neighbouring entries of one head, and where they go.
struct EntryRun {
  const void* keys;  // [count][width]
  const void* values;
  const std::uint8_t* slots;  // of them; null: one behind the other
  void* to_keys;
  void* to_values;
  std::int32_t from;  // position of slot 0, or of the first entry
  std::int32_t to;    // new position of the first; the others follow
  std::int32_t count;
};
// Copies them, keys turned on by the difference of the angles of their two positions.
template <class T>
cudaError_t move_entries(const EntryRun* runs, int count, const Turning& turning, int width,
                         cudaStream_t stream);

}  // namespace kvfs::model::cuda
