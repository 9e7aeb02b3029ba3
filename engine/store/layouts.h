// Records ↔ the bytes LMDB holds. Layouts: docs/FORMAT.md; golden bytes: layouts_test.cpp.
//
// Little-endian; every record begins with a byte that numbers its layout. Decoding checks every
// length and enumerator and that nothing is left over; damage is kCorrupt with `what` in front.
#pragma once

#include <string>

#include "engine/store/records.h"

namespace kvfs::store {

Bytes encode(const BlockRecord& block);  // without its references
Bytes encode(const VersionRecord& version);
Bytes encode(const StateRecord& state);
Bytes encode(const JobRecord& job);
Bytes encode(const FileRecord& file);
Bytes encode(const FileNode& node);

Result<BlockRecord> decode_block(ByteSpan bytes, const std::string& what);
Result<BlockSummary> decode_summary(ByteSpan bytes, const std::string& what);
Result<VersionRecord> decode_version(ByteSpan bytes, const std::string& what);
Result<StateRecord> decode_state(ByteSpan bytes, const std::string& what);
Result<JobRecord> decode_job(ByteSpan bytes, const std::string& what);
Result<FileRecord> decode_file(ByteSpan bytes, const std::string& what);
Result<FileNode> decode_node(ByteSpan bytes, const std::string& what);

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
