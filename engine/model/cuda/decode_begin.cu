// What a generated step starts with: the tokens' embeddings, normed for the first layer, and the
// angles of their positions, which all layers share.

#include "engine/model/cuda/chain.cuh"
#include "engine/model/cuda/decode.h"

namespace kvfs::model::cuda {
namespace {

constexpr int kThreads = 256;

// A block a row; 16 neighbouring threads a tile of the squares.
template <class T>
__global__ void __launch_bounds__(kThreads)
    begin_kernel(const T* table, const RowPlace* places, const std::int32_t* tokens,
                 const std::int32_t* drawn, int width, const float* norm_weight,
                 const float* frequencies, int half, float* residual, NormRows next,
                 float2* turns) {
  let_next_begin();
  wait_for_previous();
  const std::int64_t row = blockIdx.x;
  const int thread = static_cast<int>(threadIdx.x);
  const std::int32_t given = tokens[row];
  const std::int32_t token = given < 0 ? drawn[-1 - given] : given;
  const T* source = table + std::int64_t{token} * width;
  // All 16 threads of a tile turn together: width is a multiple of kTileOutputs.
  for (int i = thread; i < width; i += kThreads) {
    const float value = to_float(source[i]);
    float square = value * value;
    const unsigned together = __activemask();
    for (int d = 8; d > 0; d /= 2) square += __shfl_xor_sync(together, square, d, 16);
    residual[row * width + i] = value;
    static_cast<T*>(next.x)[row * width + i] = from_float<T>(value * norm_weight[i]);
    if (i % kTileOutputs == 0) {
      next.squares[row * (width / kTileOutputs) + i / kTileOutputs] = square;
    }
  }
  for (int i = thread; i < half; i += kThreads) {
    float2 turn;
    sincosf(static_cast<float>(places[row].position) * frequencies[i], &turn.y, &turn.x);
    turns[row * half + i] = turn;
  }
}

}  // namespace

cudaError_t begin_step(const void* table, const StepRows& step, int width, const float* norm_weight,
                       const float* frequencies, int head_width, float* residual, NormRows next,
                       float2* turns, cudaStream_t stream, bool fp16) {
  return for_activations(fp16, [&]<class T>(T*) {
    begin_kernel<<<static_cast<unsigned>(step.rows), kThreads, 0, stream>>>(
        static_cast<const T*>(table), step.places, step.tokens, step.drawn, width, norm_weight,
        frequencies, head_width / 2, residual, next, turns);
    return cudaGetLastError();
  });
}

}  // namespace kvfs::model::cuda
