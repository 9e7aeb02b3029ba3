#include "codec/container/piece_file.h"

#include <algorithm>
#include <utility>

namespace kvfs::container {

void PieceFile::add(Bytes bytes) {
  if (bytes.empty()) return;
  Piece piece{.begin = size_, .size = bytes.size(), .bytes = {}};
  piece.bytes = std::move(bytes);
  size_ += piece.size;
  pieces_.push_back(std::move(piece));
}

void PieceFile::add_range(std::size_t range, std::uint64_t size) {
  if (size == 0) return;
  pieces_.push_back({.begin = size_, .size = size, .bytes = {}, .is_range = true, .range = range});
  size_ += size;
}

bool PieceFile::frames(ByteSpan file) const {
  return file.size() == size_ && std::ranges::all_of(pieces_, [&](const Piece& piece) {
           return piece.is_range ||
                  std::ranges::equal(piece.bytes, file.subspan(piece.begin, piece.size));
         });
}

Result<std::size_t> PieceFile::read(std::uint64_t offset, MutableByteSpan out,
                                    const ReadRange& range) const {
  if (offset >= size_) return std::size_t{0};
  out = out.first(std::min<std::uint64_t>(out.size(), size_ - offset));
  auto piece = std::ranges::upper_bound(pieces_, offset, {}, &Piece::begin);
  std::size_t done = 0;
  for (--piece; done < out.size(); ++piece) {
    const std::uint64_t within = offset + done - piece->begin;
    const MutableByteSpan part =
        out.subspan(done, std::min<std::uint64_t>(out.size() - done, piece->size - within));
    if (piece->is_range) {
      KVFS_TRY(range(piece->range, within, part));
    } else {
      std::copy_n(piece->bytes.begin() + static_cast<std::ptrdiff_t>(within), part.size(),
                  part.begin());
    }
    done += part.size();
  }
  return done;
}

}  // namespace kvfs::container
