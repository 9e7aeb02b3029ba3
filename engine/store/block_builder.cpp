#include "engine/store/block_builder.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <span>
#include <string>

#include "engine/store/blocks.h"
#include "engine/store/digests.h"

namespace kvfs::store {
namespace {

tl::unexpected<Error> misfit(const NewBlock& block, const std::string& why) {
  return fail(ErrorCode::kInvalid, "add block " + std::to_string(block.index), why);
}

bool inside(const NewBlock& block, Position position) {
  return position / kBlockTokens == block.index && position >= 0;
}

Status check(const NewBlock& block) {
  // Only at the first position may several tokens stand: those that have none of their own.
  const auto first = std::ranges::find_if(
      block.tokens, [](const BlockToken& token) { return token.position != 0; });
  const auto rest = static_cast<std::size_t>(block.tokens.end() - first);
  if (block.index < 0 || rest > kBlockTokens) {
    return misfit(block, "a block has an index from 0 and at most 256 tokens");
  }
  if (!block.encodings.empty() && block.encodings.size() != block.pieces.size()) {
    return misfit(block, "its encodings are those of other pieces");
  }
  for (const BlockToken& token : block.tokens) {
    if (!inside(block, token.position)) return misfit(block, "a token lies outside of it");
  }
  std::pair<int, int> next_head{0, 0};  // layer, head
  for (const KvPiece& piece : block.pieces) {
    if (piece.head_count == 0) return misfit(block, "a piece has no heads");
    if (std::pair<int, int>{piece.layer, piece.head_begin} < next_head) {
      return misfit(block, "its pieces overlap or are not in order of layers and heads");
    }
    next_head = {piece.layer, piece.head_begin + piece.head_count};
    for (std::size_t i = 0; i < piece.positions.size(); ++i) {
      if (!inside(block, piece.positions[i])) return misfit(block, "a position lies outside of it");
      if (i > 0 && piece.positions[i] <= piece.positions[i - 1]) {
        return misfit(block, "a piece's positions do not ascend");
      }
    }
  }
  return {};
}

// The shape of one chunk of `bytes`: [heads, positions, width] in the fewest equal slices by heads
// that keep it within kChunkBytes.
Result<chunk::ShapeClass> slice_shape(const NewBlock& block, const KvPiece& piece, DType dtype,
                                      std::size_t bytes) {
  const std::size_t rows = std::size_t{piece.head_count} * piece.positions.size();
  const std::size_t width = bytes / rows / size_of(dtype);
  if (width * rows * size_of(dtype) != bytes || width > std::numeric_limits<std::uint16_t>::max()) {
    return misfit(block, "layer " + std::to_string(piece.layer) + " has " + std::to_string(bytes) +
                             " bytes of keys or values for " + std::to_string(rows) + " rows");
  }
  std::size_t slices = 1;
  while (slices < piece.head_count &&
         (piece.head_count % slices != 0 || bytes / slices > kChunkBytes)) {
    ++slices;
  }
  return chunk::ShapeClass{.dtype = dtype,
                           .heads = static_cast<std::uint16_t>(piece.head_count / slices),
                           .positions = static_cast<std::uint32_t>(piece.positions.size()),
                           .width = static_cast<std::uint16_t>(width)};
}

struct Slice {
  chunk::ShapeClass shape;
  ByteSpan bytes;
  const KnownEncoding* known = nullptr;
};

// How many it is cut into.
std::size_t cut(const Bytes& bytes, const chunk::ShapeClass& shape, std::size_t heads,
                std::vector<Slice>& out) {
  if (bytes.empty()) return 0;
  const std::size_t count = heads / shape.heads;
  const std::size_t size = bytes.size() / count;
  for (std::size_t i = 0; i < count; ++i) {
    out.push_back({shape, ByteSpan(bytes).subspan(i * size, size)});
  }
  return count;
}

// The slices of a piece, where their encodings are known and are what would be stored.
void take_known(std::span<const KnownEncoding> known, chunk::CodecId codec,
                std::span<Slice> slices) {
  const bool fits = std::ranges::equal(known, slices, [&](const KnownEncoding& a, const Slice& b) {
    const bool smaller = a.codec == codec && a.bytes.size() < b.bytes.size();
    return a.shape == b.shape && (a.codec == chunk::CodecId::kRaw || smaller);
  });
  for (std::size_t i = 0; fits && i < slices.size(); ++i) slices[i].known = &known[i];
}

std::optional<ChunkTable::StoredBytes> encoding_of(const Slice& slice) {
  if (slice.known == nullptr) return std::nullopt;
  return ChunkTable::StoredBytes{slice.known->codec, slice.known->bytes};
}

}  // namespace

Result<BlockBuilder> BlockBuilder::prepare(const NewBlock& block, DType dtype, chunk::CodecId codec,
                                           const ChunkTable& chunks, CodecPool& pool) {
  KVFS_TRY(check(block));
  BlockBuilder builder;
  builder.record_ = {.index = block.index,
                     .tokens = block.tokens,
                     .text = block.text,
                     .previous_key = block.previous_key,
                     .key = block.key};
  std::vector<Slice> slices;
  std::vector<const KvPiece*> pieces;
  for (const KvPiece& piece : block.pieces) {
    if (piece.positions.empty()) continue;  // pruned away
    Segment segment{.layer = piece.layer,
                    .head_begin = piece.head_begin,
                    .head_count = piece.head_count,
                    .kind = piece.kind,
                    .positions = piece.positions};
    KVFS_ASSIGN(segment.key_shape, slice_shape(block, piece, dtype, piece.key.size()));
    KVFS_ASSIGN(segment.value_shape, slice_shape(block, piece, dtype, piece.value.size()));
    segment.key_chunks.resize(cut(piece.key, segment.key_shape, piece.head_count, slices));
    segment.value_chunks.resize(cut(piece.value, segment.value_shape, piece.head_count, slices));
    if (!block.encodings.empty()) {
      const auto which = static_cast<std::size_t>(&piece - block.pieces.data());
      const std::size_t count = segment.key_chunks.size() + segment.value_chunks.size();
      take_known(block.encodings[which], codec, std::span(slices).last(count));
    }
    builder.record_.segments.push_back(std::move(segment));
    pieces.push_back(&piece);
  }

  std::vector<Result<PreparedChunk>> prepared(slices.size());
  std::vector<std::vector<ContentDigest>> heads(pieces.size());
  pool.run(slices.size() + pieces.size(), [&](std::size_t i) {
    if (i < slices.size()) {
      prepared[i] = chunks.prepare(slices[i].shape, slices[i].bytes, codec, encoding_of(slices[i]));
    } else {
      heads[i - slices.size()] = head_digests(*pieces[i - slices.size()]);
    }
  });

  std::vector<HeadDigest> all_heads;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    builder.record_.segments[i].digest = segment_digest(heads[i]);
    for (std::size_t head = 0; head < heads[i].size(); ++head) {
      all_heads.push_back({pieces[i]->layer,
                           static_cast<std::uint16_t>(pieces[i]->head_begin + head),
                           heads[i][head]});
    }
  }
  builder.record_.digest = block_digest(block.index, block.tokens, std::move(all_heads));

  std::vector<ChunkId> known;
  for (auto& chunk : prepared) {
    if (!chunk) return fail(chunk.error());
    if (chunk->known) known.push_back(*chunk->known);
    builder.chunks_.push_back(*std::move(chunk));
  }
  builder.all_known_ = known.size() == builder.chunks_.size();
  if (builder.all_known_) builder.set_chunk_ids(known);
  return builder;
}

std::size_t BlockBuilder::weight() const {
  std::size_t bytes = 0;
  for (const PreparedChunk& chunk : chunks_) {
    if (chunk.encoded) bytes += chunk.encoded->bytes.size();
  }
  return bytes;
}

Result<std::size_t> BlockBuilder::put_part(Txn& txn, ChunkTable& chunks, std::size_t first,
                                           std::size_t limit) {
  KVFS_ASSIGN(Counters counters, load_counters(txn));
  std::size_t bytes = 0;
  do {
    PreparedChunk& chunk = chunks_[first];
    KVFS_TRY(chunks.put(txn, counters, chunk));
    bytes += chunk.encoded ? chunk.encoded->bytes.size() : 0;
  } while (++first < chunks_.size() && bytes < limit);
  KVFS_TRY(save_counters(txn, counters));
  return first;
}

Result<BlockId> BlockBuilder::put(Txn& txn, ChunkTable& chunks) {
  KVFS_ASSIGN(Counters counters, load_counters(txn));
  std::vector<ChunkId> ids;
  for (PreparedChunk& chunk : chunks_) {
    KVFS_ASSIGN(const ChunkId id, chunks.put(txn, counters, chunk));
    ids.push_back(id);
  }
  set_chunk_ids(ids);
  KVFS_ASSIGN(const BlockId id, put_block(txn, counters, record_));
  KVFS_TRY(save_counters(txn, counters));
  return id;
}

void BlockBuilder::set_chunk_ids(const std::vector<ChunkId>& ids) {
  auto next = ids.begin();
  for (Segment& segment : record_.segments) {
    for (ChunkId& id : segment.key_chunks) id = *next++;
    for (ChunkId& id : segment.value_chunks) id = *next++;
  }
}

}  // namespace kvfs::store
