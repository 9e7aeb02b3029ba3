// What pruning asks beside attention.
//
// add_queries: a block a tile of 32 × 32 of a head's second moments, rows 32 at a time through
// shared memory, in their order; a call's sums are fp32 and are added to fp64 ones.
// expected_exponents: a block a page and query head, a thread an entry; eight rows of the head's
// matrix at a time in shared memory, its keys from the cache nearby.

#include "engine/model/cuda/looking.h"
#include "engine/model/cuda/numbers.cuh"
#include "engine/model/cuda/page_entries.cuh"
#include "engine/model/cuda/turning.cuh"

namespace kvfs::model::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPageTokens = 256;
constexpr int kTile = 32;
constexpr int kMatrixRows = 8;
constexpr int kPositionsToCome = 512;

__global__ void find_origin(const float* qkv, int rows, std::int64_t stride, int width,
                            float* origin) {
  const int head = static_cast<int>(blockIdx.x);
  for (int d = static_cast<int>(threadIdx.x); d < width; d += kThreads) {
    float sum = 0.0F;
    for (int row = 0; row < rows; ++row) sum += qkv[row * stride + head * width + d];
    origin[head * width + d] = sum / static_cast<float>(rows);
  }
}

__global__ void add_tile(const float* qkv, int rows, std::int64_t stride, int width,
                         QuerySums sums) {
  constexpr int kEach = kTile * kTile / kThreads;  // products of a thread
  __shared__ float a[kTile][kTile];
  __shared__ float b[kTile][kTile];
  const int tiles = (width + kTile - 1) / kTile;
  const int head = static_cast<int>(blockIdx.x);
  const int first_i = static_cast<int>(blockIdx.y) / tiles * kTile;
  const int first_j = static_cast<int>(blockIdx.y) % tiles * kTile;
  const int thread = static_cast<int>(threadIdx.x);
  const float* mine = qkv + head * width;
  const float* origin = sums.origin + head * width;
  const auto about = [&](int row, int d) {
    return row < rows && d < width ? mine[row * stride + d] - origin[d] : 0.0F;
  };
  float products[kEach] = {};
  float plain = 0.0F;
  for (int begin = 0; begin < rows; begin += kTile) {
    for (int i = thread; i < kTile * kTile; i += kThreads) {
      a[i / kTile][i % kTile] = about(begin + i / kTile, first_i + i % kTile);
      b[i / kTile][i % kTile] = about(begin + i / kTile, first_j + i % kTile);
    }
    __syncthreads();
    for (int row = 0; row < kTile; ++row) {
#pragma unroll
      for (int k = 0; k < kEach; ++k) {
        products[k] =
            fmaf(a[row][thread / kTile + k * (kTile / kEach)], b[row][thread % kTile], products[k]);
      }
      if (thread < kTile) plain += a[row][thread];
    }
    __syncthreads();
  }
  const int j = first_j + thread % kTile;
  for (int k = 0; k < kEach; ++k) {
    const int i = first_i + thread / kTile + k * (kTile / kEach);
    if (i < width && j < width)
      sums.second[(std::int64_t{head} * width + i) * width + j] += products[k];
  }
  if (first_j == 0 && thread < kTile && first_i + thread < width)
    sums.first[head * width + first_i + thread] += plain;
}

__global__ void average_turns(Turning turning, int first, double* turns) {
  const int i = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (i >= turning.pairs) return;
  double cosine = 0.0;
  double sine = 0.0;
  for (int position = first; position < first + kPositionsToCome; ++position) {
    const float2 turn = cosine_and_sine(turning, position, i);
    cosine += static_cast<double>(turn.x) / kPositionsToCome;
    sine += static_cast<double>(turn.y) / kPositionsToCome;
  }
  turns[i] = cosine;
  turns[turning.pairs + i] = sine;
}

// What a turn makes of a dimension: `own` of itself and `other` of its partner.
struct TurnedDimension {
  int partner;
  double own;
  double other;
};
__device__ TurnedDimension turned(const double* turns, int pairs, int d) {
  if (d >= 2 * pairs) return {d, 1.0, 0.0};
  if (d < pairs) return {d + pairs, turns[d], -turns[pairs + d]};
  return {d - pairs, turns[d - pairs], turns[d]};
}

__global__ void expect_kernel(QuerySums sums, double count, int width, double scale, int pairs,
                              ExpectedQueries to) {
  const int head = static_cast<int>(blockIdx.x);
  const int at = static_cast<int>(blockIdx.y * kThreads + threadIdx.x);
  if (at >= width * width) return;
  const int i = at / width;
  const int j = at % width;
  const double* first = sums.first + head * width;
  const double* second = sums.second + std::int64_t{head} * width * width;
  const auto covariance = [&](int a, int b) {
    return second[a * width + b] / count - first[a] / count * (first[b] / count);
  };
  const TurnedDimension x = turned(to.turns, pairs, i);
  const TurnedDimension y = turned(to.turns, pairs, j);
  const double here = y.own * (x.own * covariance(i, j) + x.other * covariance(x.partner, j));
  const double there =
      y.other * (x.own * covariance(i, y.partner) + x.other * covariance(x.partner, y.partner));
  to.matrix[std::int64_t{head} * width * width + at] =
      static_cast<float>((here + there) * scale * scale / 2);
  if (j != 0) return;
  const auto mean = [&](int d) {
    return static_cast<double>(sums.origin[head * width + d]) + first[d] / count;
  };
  to.vector[head * width + i] =
      static_cast<float>((x.own * mean(i) + x.other * mean(x.partner)) * scale);
}

template <class T>
__global__ void exponents_kernel(ExpectedQueries queries, HeadShape shape, KvPlace kv, float* out) {
  extern __shared__ float rows[];  // [kMatrixRows][width]
  const int width = shape.width;
  const int page = static_cast<int>(blockIdx.x);
  const int kv_head = static_cast<int>(blockIdx.y);
  const int head = kv_head * (shape.heads / shape.kv_heads) + static_cast<int>(blockIdx.z);
  const int thread = static_cast<int>(threadIdx.x);
  const auto entries = entries_of<T>(kv.pages[page], kv, shape, kv_head);
  const bool there = thread < entries.count;
  const T* key = entries.keys + std::int64_t{thread} * width;
  const float* matrix = queries.matrix + std::int64_t{head} * width * width;
  const float* vector = queries.vector + head * width;
  float exponent = 0.0F;
  for (int row = 0; row < width; row += kMatrixRows) {
    __syncthreads();
    for (int i = thread; i < kMatrixRows * width; i += kThreads) rows[i] = matrix[row * width + i];
    __syncthreads();
    if (!there) continue;
    float sums[kMatrixRows];
    float k[8];
#pragma unroll
    for (int r = 0; r < kMatrixRows; ++r) sums[r] = vector[row + r];
    for (int d = 0; d < width; d += 8) {
      load8(key + d, k);
#pragma unroll
      for (int r = 0; r < kMatrixRows; ++r) {
#pragma unroll
        for (int i = 0; i < 8; ++i) sums[r] = fmaf(rows[r * width + d + i], k[i], sums[r]);
      }
    }
    load8(key + row, k);
#pragma unroll
    for (int r = 0; r < kMatrixRows; ++r) exponent = fmaf(k[r], sums[r], exponent);
  }
  if (!there) return;
  out[(std::int64_t{page} * shape.heads + head) * kPageTokens + entries.slot(thread)] = exponent;
}

template <class T>
__global__ void norms_kernel(bool of_values, HeadShape shape, KvPlace kv, float* out) {
  const int page = static_cast<int>(blockIdx.x);
  const int kv_head = static_cast<int>(blockIdx.y);
  const int thread = static_cast<int>(threadIdx.x);
  const auto entries = entries_of<T>(kv.pages[page], kv, shape, kv_head);
  if (thread >= entries.count) return;
  const T* row = (of_values ? entries.values : entries.keys) + std::int64_t{thread} * shape.width;
  double sum = 0.0;
  for (int d = 0; d < shape.width; d += 8) {
    float x[8];
    load8(row + d, x);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  }
  out[(std::int64_t{page} * shape.kv_heads + kv_head) * kPageTokens + entries.slot(thread)] =
      static_cast<float>(sqrt(sum));
}

// A block a run, a warp an entry.
template <class T>
__global__ void move_kernel(const EntryRun* runs, Turning turning, int width) {
  const EntryRun run = runs[blockIdx.x];
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int i = static_cast<int>(threadIdx.x) / 32; i < run.count; i += kThreads / 32) {
    const std::int64_t at = std::int64_t{i} * width;
    const T* key = static_cast<const T*>(run.keys) + at;
    const T* value = static_cast<const T*>(run.values) + at;
    T* to_key = static_cast<T*>(run.to_keys) + at;
    T* to_value = static_cast<T*>(run.to_values) + at;
    const int from = run.from + (run.slots == nullptr ? i : run.slots[i]);
    const int to = run.to + i;
    const int turns = from == to ? 0 : 2 * turning.pairs;
    for (int d = lane; d < width; d += 32) {
      to_value[d] = value[d];
      if (d >= turns) to_key[d] = key[d];
    }
    for (int d = lane; 2 * d < turns; d += 32) {
      const float2 was = cosine_and_sine(turning, from, d);
      const float2 is = cosine_and_sine(turning, to, d);
      const double c0 = was.x, s0 = was.y, c1 = is.x, s1 = is.y;
      const double magnitude = c0 * c0 + s0 * s0;  // it is in the key already
      const double cosine = (c1 * c0 + s1 * s0) / magnitude;
      const double sine = (s1 * c0 - c1 * s0) / magnitude;
      const double a = to_float(key[d]), b = to_float(key[d + turning.pairs]);
      to_key[d] = from_float<T>(static_cast<float>(a * cosine - b * sine));
      to_key[d + turning.pairs] = from_float<T>(static_cast<float>(b * cosine + a * sine));
    }
  }
}

dim3 grid_of(int x, int y, int z = 1) {
  return {static_cast<unsigned>(x), static_cast<unsigned>(y), static_cast<unsigned>(z)};
}

}  // namespace

cudaError_t add_queries(const float* qkv, int rows, HeadShape shape, bool first_rows,
                        QuerySums sums, cudaStream_t stream) {
  if (rows <= 0) return cudaSuccess;
  const std::int64_t stride = std::int64_t{shape.heads + 2 * shape.kv_heads} * shape.width;
  if (first_rows) {
    find_origin<<<static_cast<unsigned>(shape.heads), kThreads, 0, stream>>>(
        qkv, rows, stride, shape.width, sums.origin);
    if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess) return error;
  }
  const int tiles = (shape.width + kTile - 1) / kTile;
  add_tile<<<grid_of(shape.heads, tiles * tiles), kThreads, 0, stream>>>(qkv, rows, stride,
                                                                         shape.width, sums);
  return cudaGetLastError();
}

cudaError_t expect_queries(QuerySums sums, std::int64_t count, HeadShape shape, float scale,
                           const Turning& turning, int first, ExpectedQueries to,
                           cudaStream_t stream) {
  if (turning.pairs > 0) {
    average_turns<<<static_cast<unsigned>((turning.pairs + kThreads - 1) / kThreads), kThreads, 0,
                    stream>>>(turning, first, to.turns);
    if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess) return error;
  }
  // Of no query at all: zeros.
  const auto divisor = static_cast<double>(count > 0 ? count : 1);
  const int blocks = (shape.width * shape.width + kThreads - 1) / kThreads;
  expect_kernel<<<grid_of(shape.heads, blocks), kThreads, 0, stream>>>(
      sums, divisor, shape.width, static_cast<double>(scale), turning.pairs, to);
  return cudaGetLastError();
}

template <class T>
cudaError_t expected_exponents(ExpectedQueries queries, int pages, HeadShape shape, KvPlace kv,
                               float* out, cudaStream_t stream) {
  const auto bytes = static_cast<unsigned>(kMatrixRows * shape.width) * sizeof(float);
  exponents_kernel<T>
      <<<grid_of(pages, shape.kv_heads, shape.heads / shape.kv_heads), kThreads, bytes, stream>>>(
          queries, shape, kv, out);
  return cudaGetLastError();
}

template <class T>
cudaError_t entry_norms(bool of_values, int pages, HeadShape shape, KvPlace kv, float* out,
                        cudaStream_t stream) {
  norms_kernel<T>
      <<<grid_of(pages, shape.kv_heads), kThreads, 0, stream>>>(of_values, shape, kv, out);
  return cudaGetLastError();
}

template <class T>
cudaError_t move_entries(const EntryRun* runs, int count, const Turning& turning, int width,
                         cudaStream_t stream) {
  if (count == 0) return cudaSuccess;
  move_kernel<T><<<static_cast<unsigned>(count), kThreads, 0, stream>>>(runs, turning, width);
  return cudaGetLastError();
}

#define KVFS_FOR(T)                                                                            \
  template cudaError_t expected_exponents<T>(ExpectedQueries, int, HeadShape, KvPlace, float*, \
                                             cudaStream_t);                                    \
  template cudaError_t entry_norms<T>(bool, int, HeadShape, KvPlace, float*, cudaStream_t);    \
  template cudaError_t move_entries<T>(const EntryRun*, int, const Turning&, int, cudaStream_t);
KVFS_FOR(float)
KVFS_FOR(__nv_bfloat16)
#undef KVFS_FOR

}  // namespace kvfs::model::cuda
