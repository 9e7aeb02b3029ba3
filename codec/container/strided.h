// Elements of a storage by offset, shape and strides, as torch has tensors; checked once, then
// views or row-major copies. Values; refers to the storage. Any thread.
#pragma once

#include <cstdint>
#include <vector>

#include "codec/base/bytes.h"
#include "codec/base/result.h"

namespace kvfs::container {

class Strided {
 public:
  // offset and strides in elements of `width` bytes. Refuses what leaves the storage (kCorrupt) and
  // tensors with more elements than it, whose strides repeat some (kUnsupported).
  static Result<Strided> make(std::uint64_t offset, std::vector<std::uint64_t> shape,
                              std::vector<std::uint64_t> strides, std::size_t width,
                              ByteSpan storage);

  std::uint64_t size() const { return elements_ * width_; }  // bytes
  bool is_contiguous() const { return contiguous_; }
  ByteSpan bytes() const { return storage_.subspan(offset_ * width_, size()); }  // where contiguous
  Bytes copy() const;

 private:
  Strided() = default;
  std::uint64_t offset_ = 0;
  std::vector<std::uint64_t> shape_;
  std::vector<std::uint64_t> strides_;
  std::size_t width_ = 1;
  ByteSpan storage_;
  std::uint64_t elements_ = 1;
  bool contiguous_ = true;
};

}  // namespace kvfs::container
