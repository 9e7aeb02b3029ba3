// Chunks that came to the device in one copy → their places in pages. Bits are those of
// chunk::decode().
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace kvfs::model::cuda {

// A chunk, one warp's work. Offsets are bytes from the copy's beginning, multiples of 16 but for
// the streams'; the host has checked that they, and all places to write to, lie inside.
struct UnpackJob {
  std::byte* to;  // 16-byte aligned; of the chunk's first head
  std::uint32_t heads;
  std::uint32_t head_bytes;  // decoded, a multiple of 16
  std::uint32_t pitch;       // bytes from one head's place to the next one's
  std::uint32_t from;        // raw: its bytes; else the rest plane of zh (codec/chunk/zh.h), bf16
  std::uint32_t centres;     // [heads][width]
  std::uint32_t weights;     // [256], Order0Code's
  std::uint32_t streams[5];  // their beginnings, and the last one's end
  std::uint16_t width;       // a multiple of 8; elements are a multiple of 32
  std::uint8_t table_bits;   // of zh; 0: raw
};

// The jobs lie at the copy's beginning. failures: counts the streams that do not end where their
// last symbol does; what such a chunk's places hold then is anything.
cudaError_t unpack(const std::byte* copy, int jobs, std::int32_t* failures, cudaStream_t stream);

}  // namespace kvfs::model::cuda
