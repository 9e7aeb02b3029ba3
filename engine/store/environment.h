// LMDB behind values: an environment with the store's tables, transactions, cursors.
//
// Threads: an Environment may be shared; a Txn and its Cursors belong to one thread at a time, a
// write Txn to the thread that began it. Spans that reads return point into the map and hold until
// the Txn ends or, in a write Txn, until its next change. A Txn that is not committed is aborted.
// Failure: kNoSpace (disk or map full), kCorrupt, kBusy, kIo; after a failed write the Txn must go.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>

#include "codec/base/bytes.h"

struct MDB_env;
struct MDB_txn;
struct MDB_cursor;

namespace kvfs::store {

// The numbers index names in environment.cpp; tables are found by name on disk.
enum class Table : std::uint8_t {
  kMeta,             // "format" → u32, "counters" → Counters
  kChunks,           // ChunkId → ChunkHeader, encoded bytes
  kBlocks,           // BlockId → BlockRecord
  kBlockDigests,     // XXH3-128 of a block's record → BlockId
  kBlockReferences,  // BlockId → u32
  kVersions,         // VersionId → VersionRecord
  kStates,           // StateId → StateRecord
  kNames,            // StateId of the directory, name → kind, StateId or FileId
  kPrefix,           // BlockKey → BlockId
  kFiles,            // StateId, FileArea, name → FileRecord
  kJobs,             // JobId → JobRecord
  kStateJobs,        // StateId, JobId → nothing
  kSnapshots,        // StateId, name → kind, StateId of the snapshot
  kStaged,           // StateId, path → kind, FileId
  kNodes,            // FileId → FileNode
  kExtents,          // FileId, u64 number → PieceId
  kPieces,           // PieceId → bytes
  kPieceReferences,  // PieceId → u32
};
inline constexpr int kTables = 18;

class Txn {
 public:
  Txn(Txn&& other) noexcept;
  Txn& operator=(Txn&&) = delete;
  ~Txn();

  // A transaction inside this one: its changes join this one's at its commit or vanish.
  Result<Txn> begin_nested();
  Status commit();

  Result<std::optional<ByteSpan>> get(Table table, ByteSpan key) const;
  Status put(Table table, ByteSpan key, ByteSpan value);
  // Room for a value of n bytes, to be filled in before the next change.
  Result<MutableByteSpan> reserve(Table table, ByteSpan key, std::size_t n);
  Result<bool> erase(Table table, ByteSpan key);  // false: it was not there
  Result<std::uint64_t> count(Table table) const;

 private:
  friend class Environment;
  friend class Cursor;
  Txn(MDB_env* env, MDB_txn* txn, const std::uint32_t* tables)
      : env_(env), txn_(txn), tables_(tables) {}
  std::uint32_t dbi(Table table) const { return tables_[static_cast<int>(table)]; }

  MDB_env* env_;
  MDB_txn* txn_;
  const std::uint32_t* tables_;
};

// Walks a table in byte order of keys. Must not outlive its Txn.
class Cursor {
 public:
  static Result<Cursor> open(const Txn& txn, Table table);
  Cursor(Cursor&& other) noexcept;
  Cursor& operator=(Cursor&&) = delete;
  ~Cursor();

  // To the first key that is not below `key` (an empty key: the first); false past the end.
  Result<bool> seek(ByteSpan key);
  Result<bool> next();
  ByteSpan key() const { return key_; }
  ByteSpan value() const { return value_; }

 private:
  explicit Cursor(MDB_cursor* cursor) : cursor_(cursor) {}
  Result<bool> move(int operation);

  MDB_cursor* cursor_;
  ByteSpan key_;
  ByteSpan value_;
};

class Environment {
 public:
  // The directory must exist. Takes less than map_bytes where the address space does not allow it.
  static Result<std::unique_ptr<Environment>> open(const std::filesystem::path& directory,
                                                   std::uint64_t map_bytes);
  ~Environment();
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

  Result<Txn> begin_read();
  Result<Txn> begin_write();  // waits for the one that is open

 private:
  explicit Environment(MDB_env* env) : env_(env) {}
  Status open_tables();

  MDB_env* env_;
  std::uint32_t tables_[kTables] = {};
};

}  // namespace kvfs::store
