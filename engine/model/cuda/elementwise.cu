// Kernels that touch each activation once: embedding, norms, RoPE, activations, experts' rows.

#include "engine/model/cuda/kernels.h"
#include "engine/model/cuda/numbers.cuh"
#include "engine/model/cuda/page_entries.cuh"
#include "engine/model/cuda/turning.cuh"

namespace kvfs::model::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPageTokens = 256;

template <class T>
__global__ void embed_kernel(const T* table, const std::int32_t* tokens, int width, float scale,
                             float* out) {
  const std::int64_t row = blockIdx.x;
  const T* source = table + std::int64_t{tokens[row]} * width;
  for (int i = static_cast<int>(threadIdx.x); i < width; i += kThreads) {
    out[row * width + i] = to_float(source[i]) * scale;
  }
}

__global__ void add_positions_kernel(const float* table, const RowPlace* places, int width,
                                     float* out) {
  const std::int64_t row = blockIdx.x;
  const float* source = table + std::int64_t{places[row].position} * width;
  for (int i = static_cast<int>(threadIdx.x); i < width; i += kThreads) {
    out[row * width + i] += source[i];
  }
}

__device__ float block_sum(float value, float* sums) {
  const int thread = static_cast<int>(threadIdx.x);
  sums[thread] = value;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (thread < half) sums[thread] += sums[thread + half];
    __syncthreads();
  }
  value = sums[0];
  __syncthreads();
  return value;
}

template <class T>
__global__ void norm_kernel(NormRule rule, const float* x, std::int64_t stride, T* out) {
  __shared__ float sums[kThreads];
  const std::int64_t begin = blockIdx.x * stride + std::int64_t{blockIdx.y} * rule.length;
  const int thread = static_cast<int>(threadIdx.x);
  const float* source = x + begin;
  const auto length = static_cast<float>(rule.length);
  float mean = 0.0F;
  if (rule.layer) {
    float total = 0.0F;
    for (int i = thread; i < rule.length; i += kThreads) total += source[i];
    mean = block_sum(total, sums) / length;
  }
  float squares = 0.0F;
  for (int i = thread; i < rule.length; i += kThreads) {
    squares = fmaf(source[i] - mean, source[i] - mean, squares);
  }
  const float scale = 1.0F / sqrtf(block_sum(squares, sums) / length + rule.epsilon);
  for (int i = thread; i < rule.length; i += kThreads) {
    const float normed = (source[i] - mean) * scale * rule.weight[i];
    out[begin + i] = from_float<T>(rule.bias == nullptr ? normed : normed + rule.bias[i]);
  }
}

__global__ void add_bias_kernel(const float* bias, int width, float* y) {
  const std::int64_t row = blockIdx.y;
  const int i = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (i < width) y[row * width + i] += bias[i];
}

// A block a row; a thread a pair of dimensions of one query or key head.
__device__ void turn(float* qkv, const Turning& turning, int position, const HeadShape& shape) {
  const int pairs = (shape.heads + shape.kv_heads) * turning.pairs;
  for (int i = static_cast<int>(threadIdx.x); i < pairs; i += kThreads) {
    const int dimension = i % turning.pairs;
    float* low = qkv + i / turning.pairs * shape.width + dimension;
    const float2 turn = cosine_and_sine(turning, position, dimension);
    const float a = low[0];
    const float b = low[turning.pairs];
    low[0] = a * turn.x - b * turn.y;
    low[turning.pairs] = b * turn.x + a * turn.y;
  }
}

template <class T>
__global__ void rope_and_store_kernel(float* qkv, Turning turning, const RowPlace* places,
                                      HeadShape shape, KvPlace kv, std::uint32_t only) {
  const std::int64_t row = blockIdx.x;
  if (only != 0 && (only >> row & 1U) == 0) return;
  const RowPlace place = places[row];
  float* mine = qkv + row * (shape.heads + 2 * shape.kv_heads) * shape.width;
  turn(mine, turning, place.position, shape);
  __syncthreads();
  const float* keys = mine + shape.heads * shape.width;
  const float* values = keys + shape.kv_heads * shape.width;
  void* page = kv.pages[place.first_page + place.position / kPageTokens];
  for (int i = static_cast<int>(threadIdx.x); i < shape.kv_heads * shape.width; i += kThreads) {
    const auto entries = entries_of<T>(page, kv, shape, i / shape.width);
    const std::int64_t at =
        std::int64_t{entries.newest(place.position % kPageTokens)} * shape.width + i % shape.width;
    entries.keys[at] = from_float<T>(keys[i]);
    entries.values[at] = from_float<T>(values[i]);
  }
}

__device__ float activated(Activation activation, float x) {
  switch (activation) {
    case Activation::kSilu:
      return x / (1.0F + expf(-x));
    case Activation::kGeluTanh:
      return 0.5F * x * (1.0F + tanhf(0.7978845608F * fmaf(0.044715F * x * x, x, x)));
    case Activation::kGelu:
      return 0.5F * x * (1.0F + erff(x * 0.70710678F));
  }
  return x;
}

template <class T>
__global__ void activate_kernel(Activation activation, bool gated, const float* x, int width,
                                T* out) {
  const std::int64_t row = blockIdx.y;
  const int i = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (i >= width) return;
  const float* mine = x + row * width * (gated ? 2 : 1);
  const float value = activated(activation, mine[i]);
  out[row * width + i] = from_float<T>(gated ? value * mine[width + i] : value);
}

template <class T>
__global__ void round_kernel(const float* x, std::int64_t count, T* out) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < count) out[i] = from_float<T>(x[i]);
}
__global__ void add_kernel(float* x, const float* y, std::int64_t count) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < count) x[i] += y[i];
}
__global__ void soft_cap_kernel(float* x, float cap, std::int64_t count) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < count) x[i] = cap * tanhf(x[i] / cap);
}

template <class T>
__global__ void gather_rows_kernel(const T* x, const ExpertVisit* visits, int width, T* out) {
  const std::int64_t row = visits[blockIdx.x].row;
  for (int i = static_cast<int>(threadIdx.x); i < width; i += kThreads) {
    out[std::int64_t{blockIdx.x} * width + i] = x[row * width + i];
  }
}
__global__ void scatter_rows_kernel(const float* x, const ExpertVisit* visits, int width,
                                    float* y) {
  const ExpertVisit visit = visits[blockIdx.x];
  for (int i = static_cast<int>(threadIdx.x); i < width; i += kThreads) {
    float& at = y[std::int64_t{visit.row} * width + i];
    at = fmaf(visit.share, x[std::int64_t{blockIdx.x} * width + i], at);
  }
}

// A warp an entry, 16 bytes a lane.
__global__ void gather_entries_kernel(const uint4* source, const EntrySource* from,
                                      std::int64_t entries, int row, uint4* keys, uint4* values) {
  const std::int64_t entry = std::int64_t{blockIdx.x} * (kThreads / 32) + threadIdx.x / 32;
  if (entry >= entries) return;
  for (int i = static_cast<int>(threadIdx.x) % 32; i < row; i += 32) {
    keys[entry * row + i] = source[from[entry].key * row + i];
    values[entry * row + i] = source[from[entry].value * row + i];
  }
}

unsigned blocks_for(std::int64_t count) {
  return static_cast<unsigned>((count + kThreads - 1) / kThreads);
}
dim3 rows_of(int width, int rows) { return {blocks_for(width), static_cast<unsigned>(rows)}; }

}  // namespace

template <class T>
cudaError_t embed(const T* table, const std::int32_t* tokens, int rows, int width, float scale,
                  float* out, cudaStream_t stream) {
  embed_kernel<<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(table, tokens, width, scale,
                                                                     out);
  return cudaGetLastError();
}

cudaError_t add_positions(const float* table, const RowPlace* places, int rows, int width,
                          float* out, cudaStream_t stream) {
  add_positions_kernel<<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(table, places, width,
                                                                             out);
  return cudaGetLastError();
}

template <class T>
cudaError_t norm(const NormRule& rule, const float* x, int rows, int groups, std::int64_t stride,
                 T* out, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(rows), static_cast<unsigned>(groups));
  norm_kernel<<<grid, kThreads, 0, stream>>>(rule, x, stride, out);
  return cudaGetLastError();
}

cudaError_t add_bias(const float* bias, int rows, int width, float* y, cudaStream_t stream) {
  add_bias_kernel<<<rows_of(width, rows), kThreads, 0, stream>>>(bias, width, y);
  return cudaGetLastError();
}

template <class T>
cudaError_t rope_and_store(float* qkv, const Turning& turning, const RowPlace* places, int rows,
                           HeadShape shape, KvPlace kv, cudaStream_t stream, std::uint32_t only) {
  rope_and_store_kernel<T>
      <<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(qkv, turning, places, shape, kv, only);
  return cudaGetLastError();
}

template <class T>
cudaError_t activate(Activation activation, bool gated, const float* x, int rows, int width, T* out,
                     cudaStream_t stream) {
  activate_kernel<<<rows_of(width, rows), kThreads, 0, stream>>>(activation, gated, x, width, out);
  return cudaGetLastError();
}

template <class T>
cudaError_t round_to(const float* x, std::int64_t count, T* out, cudaStream_t stream) {
  round_kernel<<<blocks_for(count), kThreads, 0, stream>>>(x, count, out);
  return cudaGetLastError();
}
cudaError_t add(float* x, const float* y, std::int64_t count, cudaStream_t stream) {
  add_kernel<<<blocks_for(count), kThreads, 0, stream>>>(x, y, count);
  return cudaGetLastError();
}
cudaError_t soft_cap(float* x, float cap, std::int64_t count, cudaStream_t stream) {
  soft_cap_kernel<<<blocks_for(count), kThreads, 0, stream>>>(x, cap, count);
  return cudaGetLastError();
}

template <class T>
cudaError_t gather_rows(const T* x, const ExpertVisit* visits, int count, int width, T* out,
                        cudaStream_t stream) {
  gather_rows_kernel<<<static_cast<unsigned>(count), kThreads, 0, stream>>>(x, visits, width, out);
  return cudaGetLastError();
}
cudaError_t scatter_rows(const float* x, const ExpertVisit* visits, int count, int width, float* y,
                         cudaStream_t stream) {
  scatter_rows_kernel<<<static_cast<unsigned>(count), kThreads, 0, stream>>>(x, visits, width, y);
  return cudaGetLastError();
}

cudaError_t gather_entries(const void* source, const EntrySource* from, std::int64_t entries,
                           int row_bytes, void* keys, void* values, cudaStream_t stream) {
  if (entries == 0) return cudaSuccess;
  constexpr std::int64_t kABlock = kThreads / 32;
  gather_entries_kernel<<<static_cast<unsigned>((entries + kABlock - 1) / kABlock), kThreads, 0,
                          stream>>>(static_cast<const uint4*>(source), from, entries,
                                    row_bytes / 16, static_cast<uint4*>(keys),
                                    static_cast<uint4*>(values));
  return cudaGetLastError();
}

#define KVFS_FOR(T)                                                                          \
  template cudaError_t embed(const T*, const std::int32_t*, int, int, float, float*,         \
                             cudaStream_t);                                                  \
  template cudaError_t norm(const NormRule&, const float*, int, int, std::int64_t, T*,       \
                            cudaStream_t);                                                   \
  template cudaError_t activate(Activation, bool, const float*, int, int, T*, cudaStream_t); \
  template cudaError_t round_to(const float*, std::int64_t, T*, cudaStream_t);               \
  template cudaError_t gather_rows(const T*, const ExpertVisit*, int, int, T*, cudaStream_t);
KVFS_FOR(float)
KVFS_FOR(__nv_bfloat16)
KVFS_FOR(__half)
#undef KVFS_FOR
#define KVFS_FOR(T)                                                                               \
  template cudaError_t rope_and_store<T>(float*, const Turning&, const RowPlace*, int, HeadShape, \
                                         KvPlace, cudaStream_t, std::uint32_t);
KVFS_FOR(float)
KVFS_FOR(__nv_bfloat16)
#undef KVFS_FOR

}  // namespace kvfs::model::cuda
