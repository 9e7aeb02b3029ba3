// safetensors headers: refused, or tensors that fill the file without a hole, and that are written
// as they were read. The first eight bytes are the size that the file is said to have.
#include <cstring>

#include "codec/container/safetensors.h"

using namespace kvfs;
using namespace kvfs::container;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::uint64_t file_size = 0;
  if (size < sizeof file_size) return 0;
  std::memcpy(&file_size, data, sizeof file_size);
  const ByteSpan front(data + sizeof file_size, size - sizeof file_size);
  auto header = parse_safetensors_header(front, file_size);
  if (!header) return 0;
  std::uint64_t end = 0;
  for (const TensorEntry& tensor : header->tensors) {
    if (tensor.begin != end || tensor.end < tensor.begin) __builtin_trap();
    end = tensor.end;
  }
  if (header->data_offset + end != file_size) __builtin_trap();
  const Bytes written = make_safetensors_header(*header);
  const auto again = parse_safetensors_header(written, written.size() + end);
  if (!again || again->tensors.size() != header->tensors.size()) __builtin_trap();
  return 0;
}
