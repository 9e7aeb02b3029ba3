// NumPy's .npy, format 1.0 (NEP 1): one array, C order, little-endian.
#pragma once

#include <cstdint>
#include <vector>

#include "codec/base/bytes.h"
#include "codec/base/dtype.h"

namespace kvfs::container {

struct NpyHeader {
  DType dtype = DType::kI32;          // kI32, kI64, kF32, kF16, kU8, kI8
  std::vector<std::uint64_t> shape;
  std::uint64_t data_offset = 0;      // multiple of 64
};

// The bytes before the data; sets data_offset. NumPy has no bfloat16: kBF16 is written as '|V2'.
Bytes make_npy_header(NpyHeader& header);

// Reads the header of a file of file_size bytes, of which `front` is the beginning, the whole header at
// least. Refuses other versions, byte orders and types, Fortran order, and sizes that lie.
Result<NpyHeader> parse_npy_header(ByteSpan front, std::uint64_t file_size);

}  // namespace kvfs::container
