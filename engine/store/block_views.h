// The two simple kinds of view: bytes in memory, and a header followed by one part a block.
#pragma once

#include <functional>
#include <mutex>

#include "engine/store/views.h"

namespace kvfs::store {

class MemoryView final : public FileView {
 public:
  explicit MemoryView(Bytes bytes) : bytes_(std::move(bytes)) {}
  std::uint64_t size() const override { return bytes_.size(); }
  Result<std::size_t> read(std::uint64_t offset, MutableByteSpan out) override;

 private:
  Bytes bytes_;
};

// What the blocks' parts are is decided by two functions: a part's size, from the block's summary,
// and its bytes, from the block. The blocks are looked at when first read.
class BlockwiseView final : public FileView {
 public:
  using PartSize = std::uint64_t (*)(const BlockSummary&);
  using Part = Bytes (*)(const BlockRecord&);

  BlockwiseView(Store& store, const VersionRecord& version, Bytes header, std::uint64_t size,
                PartSize part_size, Part part)
      : store_(store),
        blocks_(version.blocks),
        header_(std::move(header)),
        size_(size),
        part_size_(part_size),
        part_(part) {}
  std::uint64_t size() const override { return size_; }
  Result<std::size_t> read(std::uint64_t offset, MutableByteSpan out) override;

 private:
  Status find_ends();

  Store& store_;
  const std::vector<BlockId> blocks_;
  const Bytes header_;
  const std::uint64_t size_;
  const PartSize part_size_;
  const Part part_;
  std::mutex mutex_;
  std::vector<std::uint64_t> ends_;  // of parts in the file; guarded by mutex_ until filled
};

// Copies what [offset, offset + out.size()) has in common with a section that begins at `begin`.
void copy_overlap(std::uint64_t begin, ByteSpan section, std::uint64_t offset, MutableByteSpan out);

}  // namespace kvfs::store
