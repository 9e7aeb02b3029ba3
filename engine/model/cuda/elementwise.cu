// Kernels that touch each activation once: embedding, RMSNorm, RoPE, SwiGLU.

#include "engine/model/cuda/kernels.h"
#include "engine/model/cuda/numbers.cuh"

namespace kvfs::model::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPageTokens = 256;

template <class T>
__global__ void embed_kernel(const T* table, const std::int32_t* tokens, int width, float* out) {
  const std::int64_t row = blockIdx.x;
  const T* source = table + std::int64_t{tokens[row]} * width;
  for (int i = static_cast<int>(threadIdx.x); i < width; i += kThreads) {
    out[row * width + i] = to_float(source[i]);
  }
}

template <class T>
__global__ void rms_norm_kernel(const float* x, const float* weight, int width, float epsilon,
                                T* out) {
  __shared__ float sums[kThreads];
  const std::int64_t row = blockIdx.x;
  const int thread = static_cast<int>(threadIdx.x);
  const float* source = x + row * width;
  float sum = 0.0F;
  for (int i = thread; i < width; i += kThreads) sum = fmaf(source[i], source[i], sum);
  sums[thread] = sum;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (thread < half) sums[thread] += sums[thread + half];
    __syncthreads();
  }
  const float scale = 1.0F / sqrtf(sums[0] / static_cast<float>(width) + epsilon);
  for (int i = thread; i < width; i += kThreads) {
    out[row * width + i] = from_float<T>(source[i] * scale * weight[i]);
  }
}

// A block a row; a thread a pair of dimensions of one query or key head, then the values.
template <class T>
__global__ void rope_and_store_kernel(float* qkv, const float* frequencies, const RowPlace* places,
                                      HeadShape shape, KvPlace kv) {
  const std::int64_t row = blockIdx.x;
  const RowPlace place = places[row];
  const int half = shape.width / 2;
  float* mine = qkv + row * (shape.heads + 2 * shape.kv_heads) * shape.width;
  T* page = static_cast<T*>(kv.pages[place.first_page + place.position / kPageTokens]);
  const int slot = place.position % kPageTokens;

  const int pairs = (shape.heads + shape.kv_heads) * half;
  for (int i = static_cast<int>(threadIdx.x); i < pairs; i += kThreads) {
    const int head = i / half;
    const int dimension = i % half;
    float* low = mine + head * shape.width + dimension;
    const float angle = static_cast<float>(place.position) * frequencies[dimension];
    float sine;
    float cosine;
    sincosf(angle, &sine, &cosine);
    const float a = low[0];
    const float b = low[half];
    const float turned_a = a * cosine - b * sine;
    const float turned_b = b * cosine + a * sine;
    if (head < shape.heads) {
      low[0] = turned_a;
      low[half] = turned_b;
    } else {
      T* key = page + kv.key_offset +
               (std::int64_t{head - shape.heads} * kPageTokens + slot) * shape.width;
      key[dimension] = from_float<T>(turned_a);
      key[dimension + half] = from_float<T>(turned_b);
    }
  }
  const float* values = mine + (shape.heads + shape.kv_heads) * shape.width;
  for (int i = static_cast<int>(threadIdx.x); i < shape.kv_heads * shape.width; i += kThreads) {
    const std::int64_t head = i / shape.width;
    page[kv.value_offset + (head * kPageTokens + slot) * shape.width + i % shape.width] =
        from_float<T>(values[i]);
  }
}

template <class T>
__global__ void swiglu_kernel(const float* gate_up, int ffn, T* out) {
  const std::int64_t row = blockIdx.y;
  const int i = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (i >= ffn) return;
  const float gate = gate_up[row * 2 * ffn + i];
  const float up = gate_up[row * 2 * ffn + ffn + i];
  out[row * ffn + i] = from_float<T>(gate / (1.0F + expf(-gate)) * up);
}

__global__ void add_kernel(float* x, const float* y, std::int64_t count) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < count) x[i] += y[i];
}

unsigned blocks_for(std::int64_t count) {
  return static_cast<unsigned>((count + kThreads - 1) / kThreads);
}

}  // namespace

template <class T>
cudaError_t embed(const T* table, const std::int32_t* tokens, int rows, int width, float* out,
                  cudaStream_t stream) {
  embed_kernel<<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(table, tokens, width, out);
  return cudaGetLastError();
}

template <class T>
cudaError_t rms_norm(const float* x, const float* weight, int rows, int width, float epsilon,
                     T* out, cudaStream_t stream) {
  rms_norm_kernel<<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(x, weight, width, epsilon,
                                                                        out);
  return cudaGetLastError();
}

template <class T>
cudaError_t rope_and_store(float* qkv, const float* frequencies, const RowPlace* places, int rows,
                           HeadShape shape, KvPlace kv, cudaStream_t stream) {
  rope_and_store_kernel<T>
      <<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(qkv, frequencies, places, shape, kv);
  return cudaGetLastError();
}

template <class T>
cudaError_t swiglu(const float* gate_up, int rows, int ffn, T* out, cudaStream_t stream) {
  const dim3 grid(blocks_for(ffn), static_cast<unsigned>(rows));
  swiglu_kernel<<<grid, kThreads, 0, stream>>>(gate_up, ffn, out);
  return cudaGetLastError();
}

cudaError_t add(float* x, const float* y, std::int64_t count, cudaStream_t stream) {
  add_kernel<<<blocks_for(count), kThreads, 0, stream>>>(x, y, count);
  return cudaGetLastError();
}

#define KVFS_FOR(T)                                                                             \
  template cudaError_t embed(const T*, const std::int32_t*, int, int, float*, cudaStream_t);    \
  template cudaError_t rms_norm(const float*, const float*, int, int, float, T*, cudaStream_t); \
  template cudaError_t rope_and_store<T>(float*, const float*, const RowPlace*, int, HeadShape, \
                                         KvPlace, cudaStream_t);                                \
  template cudaError_t swiglu(const float*, int, int, T*, cudaStream_t);
KVFS_FOR(float)
KVFS_FOR(__nv_bfloat16)
#undef KVFS_FOR

}  // namespace kvfs::model::cuda
