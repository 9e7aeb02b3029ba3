// A file laid out in pieces: bytes that are there, and ranges that are asked for as they are read.
// Its size is known and any part of it can be had without building the whole. Once laid out any
// thread.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "codec/base/bytes.h"
#include "codec/base/result.h"

namespace kvfs::container {

class PieceFile {
 public:
  // Fills `out` with the bytes from `offset` on of a range.
  using ReadRange =
      std::function<Status(std::size_t range, std::uint64_t offset, MutableByteSpan out)>;

  void add(Bytes bytes);
  void add_range(std::size_t range, std::uint64_t size);

  std::uint64_t size() const { return size_; }
  // Bytes from `offset` on; returns how many, fewer than asked for only at the end.
  Result<std::size_t> read(std::uint64_t offset, MutableByteSpan out, const ReadRange& range) const;
  // Whether `file` is this one, whatever its ranges hold.
  bool frames(ByteSpan file) const;

 private:
  struct Piece {
    std::uint64_t begin = 0;  // in the file
    std::uint64_t size = 0;
    Bytes bytes;  // of a piece that is no range
    bool is_range = false;
    std::size_t range = 0;
  };

  std::vector<Piece> pieces_;  // ascending, without holes
  std::uint64_t size_ = 0;
};

}  // namespace kvfs::container
