// safetensors: an 8-byte little-endian header length, a JSON header, tensor bytes back to back
// (format: the safetensors README). Headers are padded with spaces so that data starts 8-aligned.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "codec/base/bytes.h"
#include "codec/base/dtype.h"

namespace kvfs::container {

struct TensorEntry {
  std::string name;
  DType dtype = DType::kBF16;
  std::vector<std::uint64_t> shape;
  std::uint64_t begin = 0;  // offsets into the data area
  std::uint64_t end = 0;
};

struct SafetensorsHeader {
  std::vector<TensorEntry> tensors;              // in file order
  std::map<std::string, std::string> metadata;   // "__metadata__"
  std::uint64_t data_offset = 0;                 // of the data area in the file (set by both functions)
};

// Lays the tensors out back to back in the order given (begin and end are computed here) and returns
// the bytes that precede the data area. The same input gives the same bytes. Names are distinct.
Bytes make_safetensors_header(SafetensorsHeader& header);

// Reads the header of a file of file_size bytes, of which `front` is the beginning (at least
// 8 + header length bytes). Refuses overlaps, holes, sizes that lie, headers over 100 MB.
Result<SafetensorsHeader> parse_safetensors_header(ByteSpan front, std::uint64_t file_size);

}  // namespace kvfs::container
