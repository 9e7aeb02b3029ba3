// Packed weights in and out: blocks into tiles on the host, tiles into bf16 on the device.

#include <cstring>

#include "engine/model/cuda/chain.cuh"
#include "engine/model/cuda/packed_format.cuh"

namespace kvfs::model::cuda {
namespace {

constexpr int kUnpackWarps = 8;

// A warp a chunk of a tile.
template <WeightKind kKind>
__global__ void __launch_bounds__(32 * kUnpackWarps)
    unpack_kernel(const std::uint8_t* packed, int outputs, int inputs, int tiles, bool paired,
                  __nv_bfloat16* out) {
  using F = Format<kKind>;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int chunks = packed_chunks(inputs);
  const std::int64_t place = std::int64_t{blockIdx.x} * kUnpackWarps + threadIdx.x / 32;
  if (place >= std::int64_t{tiles} * chunks) return;
  const int tile = static_cast<int>(place / chunks);
  const int chunk = static_cast<int>(place % chunks);
  const std::uint8_t* from = packed + place * F::kBytes;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = lane / 4 + 8 * half;
    const int output =
        paired ? tile * 8 + row % 8 + half * (outputs / 2) : tile * kTileOutputs + row;
    if (output >= outputs) continue;
    uint4 planes[F::kPlanes];
#pragma unroll
    for (int plane = 0; plane < F::kPlanes; ++plane) {
      planes[plane] = reinterpret_cast<const uint4*>(from + plane * kPlaneBytes)[half * 32 + lane];
    }
    const unsigned* scales =
        reinterpret_cast<const unsigned*>(from + F::kPlanes * kPlaneBytes) + lane / 4 * kBlocks;
#pragma unroll
    for (int block = 0; block < kBlocks; ++block) {
      const int k = chunk * kPackedChunk + block * kPackedBlock + lane % 4 * 8;
      if (k >= inputs) continue;
      const Eight eight = eight_of<kKind>(planes, block);
      const float scale = half_of(scales[block], half);
      const float minimum = F::kMinimums ? half_of(scales[32 + block], half) : 0.0F;
      float values[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const unsigned byte = (i < 4 ? eight.first : eight.second) >> (8 * (i % 4)) & 255U;
        const int number = F::kSigned ? static_cast<std::int8_t>(byte) : static_cast<int>(byte);
        values[i] = static_cast<float>(number >> F::kShift) * scale + minimum;
      }
      *reinterpret_cast<uint4*>(out + std::int64_t{output} * inputs + k) = {
          pack(values[0], values[1]), pack(values[2], values[3]), pack(values[4], values[5]),
          pack(values[6], values[7])};
    }
  }
}

}  // namespace

void pack_block(WeightKind kind, const WeightBlock& block, int row, int index, std::uint8_t* tile) {
  std::uint8_t* chunk = tile + index / kBlocks * packed_chunk_bytes(kind);
  const int in_chunk = index % kBlocks;
  for (int lane = 0; lane < 4; ++lane) {
    std::uint8_t* to = chunk + row / 8 * 512 + (row % 8 * 4 + lane) * 16 + in_chunk * 4;
    for (int i = 0; i < 4; ++i) {
      const auto first = static_cast<std::uint8_t>(block.numbers[lane * 8U + i]);
      const auto second = static_cast<std::uint8_t>(block.numbers[lane * 8U + i + 4U]);
      if (kind == WeightKind::kInt8) {
        to[i] = first;
        to[kPlaneBytes + i] = second;
      } else {
        to[i] = static_cast<std::uint8_t>((first & 15U) | second << 4);
      }
    }
  }
  std::uint8_t* scale =
      chunk + packed_planes(kind) * kPlaneBytes + (row % 8 * kBlocks + in_chunk) * 4 + row / 8 * 2;
  std::memcpy(scale, &block.scale, sizeof(block.scale));
  if (kind == WeightKind::kInt4Min) {
    std::memcpy(scale + 128, &block.minimum, sizeof(block.minimum));
  }
}

cudaError_t unpack(const Matrix& w, __nv_bfloat16* out, cudaStream_t stream) {
  const auto* packed = static_cast<const std::uint8_t*>(w.data);
  const int tiles = (w.outputs + kTileOutputs - 1) / kTileOutputs;
  const std::int64_t chunks = std::int64_t{tiles} * packed_chunks(w.inputs);
  const auto blocks = static_cast<unsigned>((chunks + kUnpackWarps - 1) / kUnpackWarps);
  const auto with = [&]<WeightKind kKind>() {
    unpack_kernel<kKind><<<blocks, 32 * kUnpackWarps, 0, stream>>>(packed, w.outputs, w.inputs,
                                                                   tiles, w.paired, out);
    return cudaGetLastError();
  };
  switch (w.kind) {
    case WeightKind::kInt4:
      return with.template operator()<WeightKind::kInt4>();
    case WeightKind::kInt4Min:
      return with.template operator()<WeightKind::kInt4Min>();
    case WeightKind::kInt8:
      return with.template operator()<WeightKind::kInt8>();
    case WeightKind::kBf16:
    case WeightKind::kF16:
      break;
  }
  return cudaErrorInvalidValue;
}

}  // namespace kvfs::model::cuda
