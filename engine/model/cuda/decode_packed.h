// Weights of fewer bits than bf16 on the device: GGUF's, in the order in which lanes multiply them.
//
// A matrix is tiles of 16 outputs, a tile chunks of 128 inputs, one after the other; a chunk is
//
//   planes of 1024 bytes   numbers of 4 bits: one plane; of 8 bits: two
//   128 bytes of scales    fp16 [8 outputs g][4 blocks of 32 inputs][g, g + 8]
//   128 bytes of minimums  the same; kInt4Min only
//
// so that a chunk is one copy, and what a lane reads lies beside its neighbour's. Of a plane, lane
// 4g + t owns 16 bytes of output g and 16 of output g + 8, 512 further on: word b is of the block's
// inputs 8t … 8t + 7: of 4 bits inputs i and 4 + i are the lower and the upper half of byte i, of 8
// bits inputs 0 … 3 are in the first plane and the others in the second. What fills up the last
// chunk and the last tile has zero scales.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <array>
#include <cstddef>
#include <cstdint>

#include "engine/model/cuda/decode.h"

namespace kvfs::model::cuda {

inline constexpr int kPackedChunk = 128;  // inputs
inline constexpr int kPackedBlock = 32;   // inputs of a scale
inline constexpr int kPlaneBytes = 1024;  // of a chunk

constexpr int packed_planes(WeightKind kind) { return kind == WeightKind::kInt8 ? 2 : 1; }
constexpr int packed_chunk_bytes(WeightKind kind) {
  return packed_planes(kind) * kPlaneBytes + (kind == WeightKind::kInt4Min ? 256 : 128);
}
constexpr int packed_chunks(int inputs) { return (inputs + kPackedChunk - 1) / kPackedChunk; }
constexpr std::size_t packed_tile_bytes(WeightKind kind, int inputs) {
  return static_cast<std::size_t>(packed_chunks(inputs)) *
         static_cast<std::size_t>(packed_chunk_bytes(kind));
}
constexpr std::size_t packed_bytes(WeightKind kind, int outputs, int inputs) {
  return static_cast<std::size_t>((outputs + kTileOutputs - 1) / kTileOutputs) *
         packed_tile_bytes(kind, inputs);
}

// 32 neighbouring weights of an output: number · scale + minimum; scale and minimum are fp16.
struct WeightBlock {
  std::array<std::int8_t, kPackedBlock> numbers;  // kInt4: −8 … 7, kInt4Min: 0 … 15
  std::uint16_t scale;
  std::uint16_t minimum;  // kInt4Min only
};

// Where an output's weights are. paired: a tile is 8 of the first half of the outputs and their
// partners of the second, as gate() wants them.
struct PackedRow {
  int tile;
  int row;
};
constexpr PackedRow packed_row(int output, int outputs, bool paired) {
  if (!paired) return {output / kTileOutputs, output % kTileOutputs};
  const int half = outputs / 2;
  const int in_half = output % half;
  return {in_half / 8, in_half % 8 + (output < half ? 0 : 8)};
}
constexpr int packed_output(int tile, int row, int outputs, bool paired) {
  if (!paired) return tile * kTileOutputs + row;
  return tile * 8 + row % 8 + (row < 8 ? 0 : outputs / 2);
}

// Puts a block (inputs 32·block …) of row `row` where it belongs in a tile of host memory.
void pack_block(WeightKind kind, const WeightBlock& block, int row, int index, std::uint8_t* tile);

// out [outputs][inputs] = the weights, as bf16 to nearest.
cudaError_t unpack(const Matrix& w, __nv_bfloat16* out, cudaStream_t stream);

}  // namespace kvfs::model::cuda
