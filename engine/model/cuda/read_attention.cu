// Attention of the read path over pages of 256 positions, with the instructions that every device
// since sm_80 has; see read_tile.cuh.

#include "engine/model/cuda/read_tile.cuh"

namespace kvfs::model::cuda {
namespace {

constexpr int kStages = 3;

template <int kWidth>
__device__ __forceinline__ void attend_keys(const ReadBlock<kWidth>& block, int tile,
                                            const std::uint8_t* keys,
                                            const unsigned (&q)[kWidth / 16][4],
                                            Sums<kWidth>& sums) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float c[8][4] = {};
#pragma unroll
  for (int step = 0; step < kWidth / 16; ++step) {
#pragma unroll
    for (int pair = 0; pair < kTileKeys / 16; ++pair) {
      unsigned k[4];
      load_matrices(k,
                    keys + in_side(pair * 16 + lane / 16 * 8 + lane % 8, 2 * step + lane / 8 % 2));
      multiply(c[2 * pair], q[step][0], q[step][1], q[step][2], q[step][3], k[0], k[1]);
      multiply(c[2 * pair + 1], q[step][0], q[step][1], q[step][2], q[step][3], k[2], k[3]);
    }
  }
  block.mask(tile, c);
  float scale[2];
  weights_of<kWidth>(c, sums, scale);
  // Times one changes no bits.
  if (__any_sync(0xffffffffU, scale[0] != 1.0F || scale[1] != 1.0F)) rescale<kWidth>(scale, sums);
  const std::uint8_t* values = keys + kSideBytes<kWidth>;
#pragma unroll
  for (int step = 0; step < kTileKeys / 16; ++step) {
    unsigned w[4];
    packed_weights(c, step, w);
#pragma unroll
    for (int pair = 0; pair < kWidth / 16; ++pair) {
      unsigned v[4];
      load_transposed(
          v, values + in_side(step * 16 + lane / 8 % 2 * 8 + lane % 8, 2 * pair + lane / 16));
      multiply(sums.values[2 * pair], w[0], w[1], w[2], w[3], v[0], v[1]);
      multiply(sums.values[2 * pair + 1], w[0], w[1], w[2], w[3], v[2], v[3]);
    }
  }
}

template <int kWidth>
__global__ void __launch_bounds__(kReadThreads, 1)
    attend_rows_kernel(__nv_bfloat16* rows_of, ReadRows rows, HeadShape shape, KvPlace kv,
                       bool fp16) {
  extern __shared__ __align__(1024) std::uint8_t ring[];
  const ReadBlock<kWidth> block(rows_of, rows, shape, kv, fp16);
  const auto stage = [&](int i) { return ring + i % kStages * (2 * kSideBytes<kWidth>); };
  const bool busy = block.row < rows.first + rows.count && block.row + 16 > rows.first;
  unsigned q[kWidth / 16][4];
  block.load_queries(q);
  for (int i = 0; i < kStages - 1; ++i) {
    if (i < block.tiles) block.fetch(i, stage(i));
    close_copies();
  }
  Sums<kWidth> sums;
  for (int i = 0; i < block.tiles; ++i) {
    await_copies<kStages - 2>();
    __syncthreads();  // tile i is there, and all are done with tile i − 1
    const int next = i + kStages - 1;
    if (next < block.tiles) block.fetch(next, stage(next));
    close_copies();
    if (busy && i * kTileKeys <= block.position + 15) {
      attend_keys<kWidth>(block, i, stage(i), q, sums);
    }
  }
  if (busy) block.store(sums);
}

template <int kWidth>
cudaError_t launch(__nv_bfloat16* rows_of, ReadRows rows, HeadShape shape, KvPlace kv,
                   cudaStream_t stream, bool fp16) {
  constexpr int kShared = kStages * 2 * kSideBytes<kWidth>;
  if (const cudaError_t error = cudaFuncSetAttribute(
          attend_rows_kernel<kWidth>, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared);
      error != cudaSuccess) {
    return error;
  }
  attend_rows_kernel<kWidth>
      <<<read_grid(rows, shape), kReadThreads, kShared, stream>>>(rows_of, rows, shape, kv, fp16);
  return cudaGetLastError();
}

}  // namespace

cudaError_t attend_rows(__nv_bfloat16* rows_of, ReadRows rows, HeadShape shape, KvPlace kv,
                        cudaStream_t stream, bool newest_instructions, bool fp16) {
  if (newest_instructions) {
    const cudaError_t error = attend_rows_sm90(rows_of, rows, shape, kv, stream, fp16);
    if (error != cudaErrorNotSupported) return error;
  }
  return shape.width == 64 ? launch<64>(rows_of, rows, shape, kv, stream, fp16)
                           : launch<128>(rows_of, rows, shape, kv, stream, fp16);
}

}  // namespace kvfs::model::cuda
