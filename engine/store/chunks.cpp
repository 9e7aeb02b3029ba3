#include "engine/store/chunks.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "engine/store/digests.h"
#include "engine/store/layouts.h"

namespace kvfs::store {
namespace {

std::string name_of(const ChunkId& id) { return "chunk " + id.hex(); }

tl::unexpected<Error> corrupt(const ChunkId& id, std::string why) {
  return fail(ErrorCode::kCorrupt, name_of(id), std::move(why),
              "run kvfsd --check and restore the store from a backup");
}

// Header and payload, the payload's checksum checked.
struct StoredChunk {
  ChunkHeader header;
  ByteSpan payload;
};
Result<StoredChunk> open_chunk(const ChunkId& id, ByteSpan value) {
  KVFS_ASSIGN(const ChunkHeader header, decode_chunk_header(value, name_of(id)));
  const ByteSpan payload = value.subspan(kChunkHeaderBytes);
  if (hash64(payload) != header.checksum) {
    return corrupt(id, "its stored bytes do not match their checksum");
  }
  return StoredChunk{header, payload};
}

}  // namespace

ChunkId chunk_id(const chunk::ShapeClass& shape, ByteSpan decoded, std::uint64_t seed) {
  Hasher hasher(seed);
  hasher.number(static_cast<std::uint8_t>(shape.dtype));
  hasher.number(shape.heads);
  hasher.number(shape.positions);
  hasher.number(shape.width);
  hasher.raw(decoded);
  return hasher.finish<ChunkId>();
}

Result<PreparedChunk> ChunkTable::prepare(const chunk::ShapeClass& shape, ByteSpan decoded,
                                          chunk::CodecId codec,
                                          std::optional<StoredBytes> encoded) const {
  PreparedChunk chunk{.shape = shape,
                      .decoded = decoded,
                      .codec = codec,
                      .first_id = hash_(shape, decoded, 0),
                      .erasures = erasures_.load()};
  {
    KVFS_ASSIGN(const Txn txn, environment_.begin_read());
    for (std::uint64_t seed = 0; seed < kMaxSeeds; ++seed) {
      const ChunkId id = id_under(chunk, seed);
      KVFS_ASSIGN(const Match found, match(txn, id, chunk));
      if (found == Match::kEqual) chunk.known = id;
      if (found != Match::kOther) break;
    }
  }
  if (!chunk.known && encoded) {
    const auto& [stored_as, payload] = *encoded;
    chunk.encoded = chunk::Encoded{stored_as, Bytes(payload.begin(), payload.end())};
  } else if (!chunk.known) {
    chunk.encoded = chunk::encode(codec, shape, decoded);
  }
  return chunk;
}

Result<ChunkId> ChunkTable::put(Txn& txn, Counters& counters, PreparedChunk& chunk) {
  for (std::uint64_t seed = 0; seed < kMaxSeeds; ++seed) {
    const ChunkId id = id_under(chunk, seed);
    Match found = Match::kEqual;
    if (chunk.known == id && chunk.erasures == erasures_.load()) {
      // Compared already, and no chunk has been erased since.
    } else {
      KVFS_ASSIGN(found, match(txn, id, chunk));
    }
    if (found == Match::kOther) continue;
    if (found == Match::kDamaged) KVFS_TRY(erase(txn, counters, id));  // healed by its good copy
    if (found != Match::kEqual) KVFS_TRY(insert(txn, counters, id, chunk));
    if (touched_) touched_->insert(id);
    return id;
  }
  return too_many_collisions();
}

// Equal encodings are equal chunks; else the stored one is decoded and compared byte by byte.
Result<ChunkTable::Match> ChunkTable::match(const Txn& txn, const ChunkId& id,
                                            const PreparedChunk& chunk) const {
  KVFS_ASSIGN(const auto value, txn.get(Table::kChunks, id.bytes));
  if (!value) return Match::kAbsent;
  const auto stored = open_chunk(id, *value);
  if (!stored) return Match::kDamaged;
  if (stored->header.shape != chunk.shape) return Match::kOther;
  if (chunk.encoded && chunk.encoded->codec == stored->header.codec &&
      std::ranges::equal(chunk.encoded->bytes, stored->payload)) {
    return Match::kEqual;
  }
  Bytes decoded(chunk.shape.byte_size());
  if (!chunk::decode(stored->header.codec, chunk.shape, stored->payload, decoded)) {
    return Match::kDamaged;
  }
  return std::ranges::equal(decoded, chunk.decoded) ? Match::kEqual : Match::kOther;
}

Status ChunkTable::insert(Txn& txn, Counters& counters, const ChunkId& id, PreparedChunk& chunk) {
  if (!chunk.encoded) chunk.encoded = chunk::encode(chunk.codec, chunk.shape, chunk.decoded);
  const ByteSpan payload = chunk.encoded->bytes;
  const Bytes header =
      encode(ChunkHeader{.codec = chunk.encoded->codec,
                         .shape = chunk.shape,
                         .encoded_size = static_cast<std::uint32_t>(payload.size()),
                         .checksum = hash64(payload)});
  KVFS_ASSIGN(const MutableByteSpan value,
              txn.reserve(Table::kChunks, id.bytes, header.size() + payload.size()));
  std::memcpy(value.data(), header.data(), header.size());
  if (!payload.empty()) std::memcpy(value.data() + header.size(), payload.data(), payload.size());
  StoreStatistics& statistics = counters.statistics;
  ++statistics.chunks;
  statistics.bytes_unique += chunk.shape.byte_size();
  statistics.bytes_stored += payload.size();
  return {};
}

Result<std::uint64_t> ChunkTable::erase(Txn& txn, Counters& counters, const ChunkId& id) {
  KVFS_ASSIGN(const auto value, txn.get(Table::kChunks, id.bytes));
  if (!value) return 0;
  KVFS_ASSIGN(const ChunkHeader header, decode_chunk_header(*value, name_of(id)));
  KVFS_TRY(txn.erase(Table::kChunks, id.bytes));
  StoreStatistics& statistics = counters.statistics;
  --statistics.chunks;
  statistics.bytes_unique -= header.shape.byte_size();
  statistics.bytes_stored -= header.encoded_size;
  return header.encoded_size;
}

Result<ChunkTable::StoredBytes> ChunkTable::find(const Txn& txn, const ChunkId& id,
                                                 const chunk::ShapeClass& shape) const {
  KVFS_ASSIGN(const auto value, txn.get(Table::kChunks, id.bytes));
  if (!value) return corrupt(id, "the store does not hold it");
  KVFS_ASSIGN(const StoredChunk stored, open_chunk(id, *value));
  if (stored.header.shape != shape) {
    return corrupt(id, "its shape is not the one that its block names");
  }
  return StoredBytes{stored.header.codec, stored.payload};
}

Status ChunkTable::read(const Txn& txn, const ChunkId& id, const chunk::ShapeClass& shape,
                        MutableByteSpan out) const {
  KVFS_ASSIGN(const StoredBytes stored, find(txn, id, shape));
  if (out.size() != shape.byte_size()) {
    return corrupt(id, "its shape is not the one that its block names");
  }
  if (auto decoded = chunk::decode(stored.codec, shape, stored.payload, out); !decoded) {
    return corrupt(id, decoded.error().message());
  }
  return {};
}

Result<chunk::StoredChunk> ChunkTable::append_stored(const Txn& txn, const ChunkId& id,
                                                     const chunk::ShapeClass& shape,
                                                     Bytes& out) const {
  KVFS_ASSIGN(const StoredBytes stored, find(txn, id, shape));
  const std::size_t begin = out.size();
  out.insert(out.end(), stored.payload.begin(), stored.payload.end());
  return chunk::StoredChunk{stored.codec, shape, begin, stored.payload.size()};
}

Result<Bytes> ChunkTable::stored(const Txn& txn, const ChunkId& id) const {
  KVFS_ASSIGN(const auto value, txn.get(Table::kChunks, id.bytes));
  if (!value) return corrupt(id, "the store does not hold it");
  return Bytes(value->begin(), value->end());
}

Status ChunkTable::check(const ChunkId& id, ByteSpan value) const {
  KVFS_ASSIGN(const StoredChunk stored, open_chunk(id, value));
  const chunk::ShapeClass& shape = stored.header.shape;
  Bytes decoded(shape.byte_size());
  if (auto status = chunk::decode(stored.header.codec, shape, stored.payload, decoded); !status) {
    return corrupt(id, status.error().message());
  }
  for (std::uint64_t seed = 0; seed < kMaxSeeds; ++seed) {
    if (hash_(shape, decoded, seed) == id) return {};
  }
  return corrupt(id, "its content has another hash");
}

Result<std::uint64_t> ChunkTable::sweep(Txn& txn, Counters& counters,
                                        std::span<const ChunkId> garbage) {
  std::uint64_t freed = 0;
  for (const ChunkId& id : garbage) {
    if (touched_ && touched_->contains(id)) continue;
    KVFS_ASSIGN(const std::uint64_t bytes, erase(txn, counters, id));
    freed += bytes;
  }
  ++erasures_;
  return freed;
}

tl::unexpected<Error> ChunkTable::too_many_collisions() const {
  return fail(ErrorCode::kInternal, "store a chunk", "its hash collides under every seed");
}

}  // namespace kvfs::store
