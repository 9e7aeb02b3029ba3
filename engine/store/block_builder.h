// Turns a NewBlock into what is stored: checks it, slices its pieces into chunks, hashes and
// encodes these in the codec pool, and, on the writer thread, puts them and the block's record.
#pragma once

#include <vector>

#include "engine/store/chunks.h"
#include "engine/store/codec_pool.h"

namespace kvfs::store {

// Decoded bytes that a chunk holds at most, where a head is not larger by itself.
inline constexpr std::size_t kChunkBytes = 131'072;

class BlockBuilder {
 public:
  // kInvalid when the pieces do not fit the block. `block` must outlive the builder.
  static Result<BlockBuilder> prepare(const NewBlock& block, DType dtype, chunk::CodecId codec,
                                      const ChunkTable& chunks, CodecPool& pool);

  // The record, when every chunk was in the table already.
  const BlockRecord* known_record() const { return all_known_ ? &record_ : nullptr; }

  // Bytes that put() writes about.
  std::size_t weight() const;
  // Chunks first … first + n, where n is as many as weigh at most `limit`, one at least: a block
  // that is larger than a transaction should be is put in parts. Returns the next `first`.
  Result<std::size_t> put_part(Txn& txn, ChunkTable& chunks, std::size_t first, std::size_t limit);
  // All chunks (those of earlier parts are merely looked up) and the record, in one transaction.
  Result<BlockId> put(Txn& txn, ChunkTable& chunks);
  std::size_t chunk_count() const { return chunks_.size(); }

 private:
  BlockBuilder() = default;
  void set_chunk_ids(const std::vector<ChunkId>& ids);

  BlockRecord record_;
  std::vector<PreparedChunk> chunks_;  // by segment: key slices, value slices
  bool all_known_ = false;
};

}  // namespace kvfs::store
