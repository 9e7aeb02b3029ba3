#include "engine/store/block_views.h"

#include <algorithm>
#include <cstring>

#include "codec/container/npy.h"

namespace kvfs::store {
namespace {

Bytes text_part(const BlockRecord& block) { return Bytes(block.text.begin(), block.text.end()); }
std::uint64_t text_size(const BlockSummary& block) { return block.text_bytes; }

Bytes tokens_part(const BlockRecord& block) {
  ByteWriter out;
  for (const BlockToken& token : block.tokens) out.number(token.token);
  return out.take();
}
std::uint64_t tokens_size(const BlockSummary& block) {
  return std::uint64_t{block.token_count} * sizeof(TokenId);
}

}  // namespace

void copy_overlap(std::uint64_t begin, ByteSpan section, std::uint64_t offset,
                  MutableByteSpan out) {
  const std::uint64_t from = std::max(begin, offset);
  const std::uint64_t to = std::min(begin + section.size(), offset + out.size());
  if (from < to)
    std::memcpy(out.data() + (from - offset), section.data() + (from - begin), to - from);
}

Result<std::size_t> MemoryView::read(std::uint64_t offset, MutableByteSpan out) {
  if (offset >= bytes_.size()) return 0;
  const std::size_t n = std::min<std::uint64_t>(out.size(), bytes_.size() - offset);
  copy_overlap(0, bytes_, offset, out.first(n));
  return n;
}

Status BlockwiseView::find_ends() {
  std::lock_guard lock(mutex_);
  if (ends_.size() == blocks_.size()) return {};
  KVFS_ASSIGN(const auto summaries, store_.summaries(blocks_));
  std::vector<std::uint64_t> ends;
  std::uint64_t end = header_.size();
  for (const BlockSummary& summary : summaries) ends.push_back(end += part_size_(summary));
  if (end != size_) {
    return fail(ErrorCode::kCorrupt, "read a version", "its blocks do not add up to its size",
                "run kvfsd --check");
  }
  ends_ = std::move(ends);
  return {};
}

Result<std::size_t> BlockwiseView::read(std::uint64_t offset, MutableByteSpan out) {
  if (offset >= size_) return 0;
  const std::size_t n = std::min<std::uint64_t>(out.size(), size_ - offset);
  out = out.first(n);
  KVFS_TRY(find_ends());
  copy_overlap(0, header_, offset, out);
  auto end = std::upper_bound(ends_.begin(), ends_.end(), offset);
  for (; end != ends_.end(); ++end) {
    const std::uint64_t begin = end == ends_.begin() ? header_.size() : end[-1];
    if (begin >= offset + n) break;
    KVFS_ASSIGN(const BlockRecord block,
                store_.block(blocks_[static_cast<std::size_t>(end - ends_.begin())]));
    copy_overlap(begin, part_(block), offset, out);
  }
  return n;
}

Result<std::unique_ptr<FileView>> text_view(Store& store, const VersionRecord& version) {
  return std::make_unique<BlockwiseView>(store, version, Bytes(), version.text_bytes, text_size,
                                         text_part);
}

Result<std::unique_ptr<FileView>> tokens_view(Store& store, const VersionRecord& version) {
  container::NpyHeader header{.dtype = DType::kI32, .shape = {version.n_tokens}};
  Bytes front = container::make_npy_header(header);
  const std::uint64_t size = front.size() + version.n_tokens * sizeof(TokenId);
  return std::make_unique<BlockwiseView>(store, version, std::move(front), size, tokens_size,
                                         tokens_part);
}

Result<std::vector<BlockPin>> pin_blocks(Store& store, const VersionRecord& version) {
  std::vector<BlockPin> pins;
  pins.reserve(version.blocks.size());
  for (const BlockId block : version.blocks) {
    auto pin = store.pin(block);
    if (!pin) {
      return fail(ErrorCode::kNotFound, "an older version", "it was dropped",
                  "open the file again");
    }
    pins.push_back(*std::move(pin));
  }
  return pins;
}

Result<std::vector<BlockToken>> tokens_of(Store& store, const VersionRecord& version) {
  std::vector<BlockToken> tokens;
  tokens.reserve(version.n_tokens);
  for (BlockId id : version.blocks) {
    KVFS_ASSIGN(const BlockRecord block, store.block(id));
    tokens.insert(tokens.end(), block.tokens.begin(), block.tokens.end());
  }
  return tokens;
}

}  // namespace kvfs::store
