// The files of make_caches.py and what they hold.
#pragma once

#include <bit>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "codec/container/tensor_view.h"

namespace kvfs::container {

inline Bytes cache_file(const std::string& name) {
  std::ifstream in(std::string(KVFS_REPO_DIR "/tests/codec/container/caches/") + name,
                   std::ios::binary);
  return Bytes(std::istreambuf_iterator<char>(in), {});
}

// Exact for the whole numbers from 0 to 95 that the files hold.
inline std::vector<float> floats_of(const TensorView& tensor) {
  std::vector<float> out;
  const std::size_t width = size_of(tensor.dtype);
  for (std::size_t at = 0; at + width <= tensor.bytes.size(); at += width) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, tensor.bytes.data() + at, width);
    if (tensor.dtype == DType::kBF16) bits <<= 16;
    if (tensor.dtype == DType::kF16 && bits != 0) {  // no subnormals among them
      bits = (((bits >> 10) + 127 - 15) << 23) | ((bits & 0x3ff) << 13);
    }
    out.push_back(std::bit_cast<float>(bits));
  }
  return out;
}

inline std::vector<float> counting(std::size_t begin, std::size_t count) {
  std::vector<float> out;
  for (std::size_t i = 0; i < count; ++i) out.push_back(static_cast<float>(begin + i));
  return out;
}

}  // namespace kvfs::container
