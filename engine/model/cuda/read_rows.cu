// The read path's kernels that touch each activation once.

#include "engine/model/cuda/chain.cuh"
#include "engine/model/cuda/numbers.cuh"
#include "engine/model/cuda/read.h"

namespace kvfs::model::cuda {
namespace {

constexpr int kThreads = 256;

// Of all threads' values, in a fixed order.
__device__ float sum_of_block(float value) {
  __shared__ float sums[kThreads / 32];
  for (int d = 16; d > 0; d /= 2) value += __shfl_xor_sync(0xffffffffU, value, d);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = sums[0];
  for (int i = 1; i < kThreads / 32; ++i) sum += sums[i];
  return sum;
}

// A block a row, four neighbours from i on being at(i): its norm. A thread keeps up to kKept of its
// fours, and asks again for what is beyond. width % 4 == 0.
template <class T, class At>
__device__ void norm_row(const At& at, int width, const float* weight, float epsilon, T* normed) {
  constexpr int kKept = 4;
  float4 kept[kKept];
  float squares = 0.0F;
  const int first = static_cast<int>(threadIdx.x) * 4;
  const auto add = [&](const float4& x) {
    squares += x.x * x.x + x.y * x.y + x.z * x.z + x.w * x.w;
  };
#pragma unroll
  for (int j = 0; j < kKept; ++j) {
    const int i = first + j * kThreads * 4;
    if (i < width) add(kept[j] = at(i));
  }
  for (int i = first + kKept * kThreads * 4; i < width; i += kThreads * 4) add(at(i));
  const float scale = 1.0F / sqrtf(sum_of_block(squares) / static_cast<float>(width) + epsilon);
  const auto put = [&](int i, const float4& x) {
    const float4 w = *reinterpret_cast<const float4*>(weight + i);
    *reinterpret_cast<uint2*>(normed + i) = {pack_of<T>(x.x * scale * w.x, x.y * scale * w.y),
                                             pack_of<T>(x.z * scale * w.z, x.w * scale * w.w)};
  };
#pragma unroll
  for (int j = 0; j < kKept; ++j) {
    const int i = first + j * kThreads * 4;
    if (i < width) put(i, kept[j]);
  }
  for (int i = first + kKept * kThreads * 4; i < width; i += kThreads * 4) put(i, at(i));
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    begin_kernel(const T* table, const std::int32_t* tokens, int first, int width,
                 const float* weight, float epsilon, float* residual, T* normed) {
  const std::int64_t at = (first + std::int64_t{blockIdx.x}) * width;
  const T* from = table + std::int64_t{tokens[blockIdx.x]} * width;
  norm_row(
      [&](int i) {
        const uint2 raw = *reinterpret_cast<const uint2*>(from + i);
        const auto* four = reinterpret_cast<const T*>(&raw);
        const float4 x{to_float(four[0]), to_float(four[1]), to_float(four[2]), to_float(four[3])};
        *reinterpret_cast<float4*>(residual + at + i) = x;
        return x;
      },
      width, weight, epsilon, normed + at);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    norm_kernel(const float* residual, int first, int width, const float* weight, float epsilon,
                T* normed) {
  const std::int64_t at = (first + std::int64_t{blockIdx.x}) * width;
  norm_row([&](int i) { return *reinterpret_cast<const float4*>(residual + at + i); }, width,
           weight, epsilon, normed + at);
}

// A block a row; a thread a pair of neighbours and their partners half a head further on, or four
// neighbours of a value.
__global__ void __launch_bounds__(kThreads)
    turn_kernel(const float* qkv, const float* frequencies, ReadRows rows, HeadShape shape,
                KvPlace kv, __nv_bfloat16* queries) {
  __shared__ float2 turns[64];  // of half a head's dimensions: cosine, sine
  const int thread = static_cast<int>(threadIdx.x);
  const std::int64_t row = rows.first + static_cast<int>(blockIdx.x);
  const int position = rows.position + static_cast<int>(blockIdx.x);
  const int half = shape.width / 2;
  const float* mine = qkv + row * (shape.heads + 2 * shape.kv_heads) * shape.width;
  auto* page = static_cast<__nv_bfloat16*>(kv.pages[position / kPageTokens]);
  const int slot = position % kPageTokens;
  if (thread < half) {
    float sine;
    float cosine;
    sincosf(static_cast<float>(position) * frequencies[thread], &sine, &cosine);
    turns[thread] = {cosine, sine};
  }
  __syncthreads();

  // Weights are powers of two.
  const float scale = rsqrtf(static_cast<float>(shape.width)) * 1.44269504088896340736F;
  const int pairs = (shape.heads + shape.kv_heads) * half / 2;
  for (int i = thread; i < pairs; i += kThreads) {
    const int head = i / (half / 2);
    const int d = i % (half / 2) * 2;
    const float2 a = *reinterpret_cast<const float2*>(mine + head * shape.width + d);
    const float2 b = *reinterpret_cast<const float2*>(mine + head * shape.width + d + half);
    const float2 x = turns[d];
    const float2 y = turns[d + 1];
    const float2 low{a.x * x.x - b.x * x.y, a.y * y.x - b.y * y.y};
    const float2 high{b.x * x.x + a.x * x.y, b.y * y.x + a.y * y.y};
    if (head < shape.heads) {
      __nv_bfloat16* to = queries + (row * shape.heads + head) * shape.width + d;
      *reinterpret_cast<unsigned*>(to) = pack(low.x * scale, low.y * scale);
      *reinterpret_cast<unsigned*>(to + half) = pack(high.x * scale, high.y * scale);
    } else {
      __nv_bfloat16* to = page + kv.key_offset +
                          (std::int64_t{head - shape.heads} * kPageTokens + slot) * shape.width + d;
      *reinterpret_cast<unsigned*>(to) = pack(low.x, low.y);
      *reinterpret_cast<unsigned*>(to + half) = pack(high.x, high.y);
    }
  }
  const float* values = mine + (shape.heads + shape.kv_heads) * shape.width;
  for (int i = thread * 4; i < shape.kv_heads * shape.width; i += kThreads * 4) {
    const float4 x = *reinterpret_cast<const float4*>(values + i);
    const std::int64_t head = i / shape.width;
    *reinterpret_cast<uint2*>(page + kv.value_offset + (head * kPageTokens + slot) * shape.width +
                              i % shape.width) = {pack(x.x, x.y), pack(x.z, x.w)};
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    gate_kernel(const T* gate_up, int first, int ffn, T* out) {
  const std::int64_t row = first + std::int64_t{blockIdx.y};
  const int i = static_cast<int>(blockIdx.x * kThreads + threadIdx.x) * 8;
  if (i >= ffn) return;
  float gate[8];
  float up[8];
  load8(gate_up + row * 2 * ffn + i, gate);
  load8(gate_up + row * 2 * ffn + ffn + i, up);
  unsigned packed[4];
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const auto of = [&](int k) { return gate[k] / (1.0F + __expf(-gate[k])) * up[k]; };
    packed[j] = pack_of<T>(of(2 * j), of(2 * j + 1));
  }
  *reinterpret_cast<uint4*>(out + row * ffn + i) = {packed[0], packed[1], packed[2], packed[3]};
}

// A thread an element; width % kTileOutputs == 0.
template <class T>
__global__ void __launch_bounds__(kThreads)
    last_row_kernel(const float* residual, int width, const float* weight, NormRows out) {
  const int i = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  const float x = i < width ? residual[i] : 0.0F;
  float square = x * x;
  for (int d = kTileOutputs / 2; d > 0; d /= 2) square += __shfl_xor_sync(0xffffffffU, square, d);
  if (i >= width) return;
  static_cast<T*>(out.x)[i] = from_float<T>(x * weight[i]);
  if (i % kTileOutputs == 0) out.squares[i / kTileOutputs] = square;
}

}  // namespace

cudaError_t begin_rows(const void* table, const std::int32_t* tokens, ReadRows rows, int width,
                       const float* norm_weight, float epsilon, float* residual, void* normed,
                       cudaStream_t stream, bool fp16) {
  return for_activations(fp16, [&]<class T>(T*) {
    begin_kernel<<<static_cast<unsigned>(rows.count), kThreads, 0, stream>>>(
        static_cast<const T*>(table), tokens, rows.first, width, norm_weight, epsilon, residual,
        static_cast<T*>(normed));
    return cudaGetLastError();
  });
}

cudaError_t norm_rows(const float* residual, ReadRows rows, int width, const float* norm_weight,
                      float epsilon, void* normed, cudaStream_t stream, bool fp16) {
  return for_activations(fp16, [&]<class T>(T*) {
    norm_kernel<<<static_cast<unsigned>(rows.count), kThreads, 0, stream>>>(
        residual, rows.first, width, norm_weight, epsilon, static_cast<T*>(normed));
    return cudaGetLastError();
  });
}

cudaError_t turn_and_store(const float* qkv, const float* frequencies, ReadRows rows,
                           HeadShape shape, KvPlace kv, __nv_bfloat16* queries,
                           cudaStream_t stream) {
  turn_kernel<<<static_cast<unsigned>(rows.count), kThreads, 0, stream>>>(qkv, frequencies, rows,
                                                                          shape, kv, queries);
  return cudaGetLastError();
}

cudaError_t gate_rows(const void* gate_up, ReadRows rows, int ffn, void* out, cudaStream_t stream,
                      bool fp16) {
  const dim3 grid(static_cast<unsigned>((ffn + 8 * kThreads - 1) / (8 * kThreads)),
                  static_cast<unsigned>(rows.count));
  return for_activations(fp16, [&]<class T>(T*) {
    gate_kernel<<<grid, kThreads, 0, stream>>>(static_cast<const T*>(gate_up), rows.first, ffn,
                                               static_cast<T*>(out));
    return cudaGetLastError();
  });
}

cudaError_t last_row(const float* residual, int width, const float* norm_weight, NormRows out,
                     cudaStream_t stream, bool fp16) {
  const auto blocks = static_cast<unsigned>((width + kThreads - 1) / kThreads);
  return for_activations(fp16, [&]<class T>(T*) {
    last_row_kernel<T><<<blocks, kThreads, 0, stream>>>(residual, width, norm_weight, out);
    return cudaGetLastError();
  });
}

}  // namespace kvfs::model::cuda
