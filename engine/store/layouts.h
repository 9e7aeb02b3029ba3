// Records ↔ the bytes LMDB holds; golden bytes: layouts_test.cpp. Decoding checks every length and
// enumerator and that nothing is left over; damage is kCorrupt with `what` in front.
//
// Little-endian throughout; every record begins with a byte that numbers its layout, 1 for each of
// these. text: u32 length, bytes. list: u32 count, items. params: list of (text name, text value).
// shape: u8 dtype, u16 heads, u32 positions, u16 width. digest, key, chunk id: 16 bytes.
// positions: u32 count, then u8 1 and the i32 first of a run, or u8 0 and count × i32.
//
//   chunk    u8 layout, u8 codec, shape, u8 0, u32 encoded size, u64 XXH3-64 of the encoded bytes,
//            encoded bytes
//   block    u8 layout, summary, key of the block before, own key, tokens, text, list of segments
//            summary: i32 index, u32 tokens, u32 bytes of text, u64 bytes of KV, digest,
//              u32 (layer, head) pairs, u32 positions each holds (2³² − 1: they differ)
//            tokens: their positions, count × i32 token, count × u8 path
//            segment: u16 layer, u16 first head, u16 heads, u8 kind, positions, shape of a key
//            chunk,
//              u16 count, ids; the same of values; digest
//   version  u8 layout, u32 references, text model, fingerprint, text kernel class, u8 dtype, u8
//   codec,
//            u8 origin, text origin's detail, u64 tokens, i32 next position, u16 layers × (u16
//            heads, u16 key width, u16 value width), a layer: (u8 own positions, a head: u32
//            length), list of u64 blocks, u64 bytes of text, u64 bytes of KV, root
//   state    u8 layout, u64 parent, text name, u32 uid, u32 gid, u32 mode, i64 created, i64
//   changed,
//            i64 advanced (ns), u64 version, params
//   job      u8 layout, u64 state, text name, u8 kind, u8 status, text prompt, params, u64 seed,
//            u64 base, i64 submitted, i64 finished (ns), u32 prompt, generated, known, restored
//            tokens, u32 ms, text finish, text error
//   file     u8 layout, u64 id, u32 uid, u32 gid, u32 mode, i64 changed (ns), text content
#pragma once

#include <string>

#include "engine/store/records.h"

namespace kvfs::store {

Bytes encode(const BlockRecord& block);  // without its references
Bytes encode(const VersionRecord& version);
Bytes encode(const StateRecord& state);
Bytes encode(const JobRecord& job);
Bytes encode(const FileRecord& file);

Result<BlockRecord> decode_block(ByteSpan bytes, const std::string& what);
Result<BlockSummary> decode_summary(ByteSpan bytes, const std::string& what);
Result<VersionRecord> decode_version(ByteSpan bytes, const std::string& what);
Result<StateRecord> decode_state(ByteSpan bytes, const std::string& what);
Result<JobRecord> decode_job(ByteSpan bytes, const std::string& what);
Result<FileRecord> decode_file(ByteSpan bytes, const std::string& what);

// What stands before a chunk's encoded bytes.
struct ChunkHeader {
  chunk::CodecId codec = chunk::CodecId::kRaw;
  chunk::ShapeClass shape;
  std::uint32_t encoded_size = 0;
  std::uint64_t checksum = 0;  // XXH3-64 of the encoded bytes
};
inline constexpr std::size_t kChunkHeaderBytes = 24;

Bytes encode(const ChunkHeader& header);
// Checks that the value holds exactly encoded_size bytes after the header.
Result<ChunkHeader> decode_chunk_header(ByteSpan value, const std::string& what);

}  // namespace kvfs::store
