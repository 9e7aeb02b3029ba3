// The table chunks: decoded bytes under the hash of their content, each kept once.
//
// A hit is confirmed by comparing bytes; where a hash collides, the next seed gives the newcomer
// another id, so a collision never joins two chunks. The stored value is a ChunkHeader and the
// encoded bytes, whose checksum is checked on every read: kCorrupt names the chunk.
// Threads: prepare and read from any; put, sweep and the marks on the writer thread alone.
#pragma once

#include <atomic>
#include <optional>
#include <span>
#include <unordered_set>

#include "codec/chunk/stored_piece.h"
#include "engine/store/counters.h"
#include "engine/store/environment.h"

namespace kvfs::store {

// XXH3-128 with this seed over dtype u8, heads u16, positions u32, width u16, then the bytes.
ChunkId chunk_id(const chunk::ShapeClass& shape, ByteSpan decoded, std::uint64_t seed);
using ChunkHash = ChunkId (*)(const chunk::ShapeClass&, ByteSpan, std::uint64_t);
inline constexpr std::uint64_t kMaxSeeds = 8;

// A chunk on its way into the table. `decoded` must stay where it is until put() has run.
struct PreparedChunk {
  chunk::ShapeClass shape;
  ByteSpan decoded;
  chunk::CodecId codec = chunk::CodecId::kRaw;
  ChunkId first_id;                       // under seed 0: hashing twice would cost the writer time
  std::optional<ChunkId> known;           // an equal chunk was there when it was looked up
  std::uint64_t erasures = 0;             // as many chunks had been erased then
  std::optional<chunk::Encoded> encoded;  // where none was
};

class ChunkTable {
 public:
  explicit ChunkTable(Environment& environment, ChunkHash hash = chunk_id)
      : environment_(environment), hash_(hash) {}

  struct StoredBytes {
    chunk::CodecId codec;
    ByteSpan payload;
  };
  // The work that needs no transaction: hashes, looks the chunk up, compares or encodes, unless
  // `encoded` is what decodes to it already.
  Result<PreparedChunk> prepare(const chunk::ShapeClass& shape, ByteSpan decoded,
                                chunk::CodecId codec,
                                std::optional<StoredBytes> encoded = {}) const;
  Result<ChunkId> put(Txn& txn, Counters& counters, PreparedChunk& chunk);

  Status read(const Txn& txn, const ChunkId& id, const chunk::ShapeClass& shape,
              MutableByteSpan out) const;
  Result<Bytes> stored(const Txn& txn, const ChunkId& id) const;
  // Its encoded bytes, their checksum checked, to the end of `out`.
  Result<chunk::StoredChunk> append_stored(const Txn& txn, const ChunkId& id,
                                           const chunk::ShapeClass& shape, Bytes& out) const;
  // Decodes the value and checks that its id is one that its content gives.
  Status check(const ChunkId& id, ByteSpan value) const;

  // Between the two marks every chunk that is put or hit is noted, and sweep() spares it.
  void begin_mark() { touched_.emplace(); }
  void end_mark() { touched_.reset(); }
  // Erases those of the chunks that are there and were not touched; the encoded bytes freed.
  Result<std::uint64_t> sweep(Txn& txn, Counters& counters, std::span<const ChunkId> garbage);
  // To be called on the writer thread once a sweep is on disk, before anything else is put: what
  // was looked up before then must be looked at again.
  void swept() { ++erasures_; }

 private:
  // Its payload, of which shape and checksum are right.
  Result<StoredBytes> find(const Txn& txn, const ChunkId& id, const chunk::ShapeClass& shape) const;
  enum class Match { kAbsent, kEqual, kOther, kDamaged };
  Result<Match> match(const Txn& txn, const ChunkId& id, const PreparedChunk& chunk) const;
  ChunkId id_under(const PreparedChunk& chunk, std::uint64_t seed) const {
    return seed == 0 ? chunk.first_id : hash_(chunk.shape, chunk.decoded, seed);
  }
  Status insert(Txn& txn, Counters& counters, const ChunkId& id, PreparedChunk& chunk);
  Result<std::uint64_t> erase(Txn& txn, Counters& counters, const ChunkId& id);
  tl::unexpected<Error> too_many_collisions() const;

  Environment& environment_;
  ChunkHash hash_;
  std::atomic<std::uint64_t> erasures_ = 0;
  std::optional<std::unordered_set<ChunkId>> touched_;  // writer thread
};

}  // namespace kvfs::store
