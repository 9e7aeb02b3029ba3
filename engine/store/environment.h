// LMDB behind values: an environment with the store's tables, transactions, cursors.
//
// Threads: an Environment may be shared; a Txn and its Cursors belong to one thread at a time, a
// write Txn to the thread that began it. Spans that reads return point into the map and hold until
// the Txn ends or, in a write Txn, until its next change. A Txn that is not committed is aborted.
// A read Txn sees the last commit and, over it, the overlay that was shown when it began.
// Failure: kNoSpace (disk or map full), kCorrupt, kBusy, kIo; after a failed write the Txn must go.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>

#include "codec/base/bytes.h"
#include "engine/store/overlay.h"

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

class Txn {
 public:
  Txn(Txn&& other) noexcept;
  Txn& operator=(Txn&&) = delete;
  ~Txn();

  // A transaction inside this one: its changes join this one's at its commit or vanish.
  // touched: takes the keys that it changes.
  Result<Txn> begin_nested(TouchedKeys* touched = nullptr);
  Status commit();

  Result<std::optional<ByteSpan>> get(Table table, ByteSpan key) const;
  Status put(Table table, ByteSpan key, ByteSpan value);
  // Room for a value of n bytes, to be filled in before the next change.
  Result<MutableByteSpan> reserve(Table table, ByteSpan key, std::size_t n);
  Result<bool> erase(Table table, ByteSpan key);  // false: it was not there

  // Of a write Txn: changes as rows. read() adds what is under the keys now, for readers of the
  // commit below; apply() puts it back.
  Status read(const TouchedKeys& keys, Overlay& into) const;
  Status apply(const Overlay& overlay);

 private:
  friend class Environment;
  friend class Cursor;
  void touch(Table table, ByteSpan key);
  Txn(MDB_env* env, MDB_txn* txn, const std::uint32_t* tables)
      : env_(env), txn_(txn), tables_(tables) {}
  std::uint32_t dbi(Table table) const { return tables_[static_cast<int>(table)]; }

  MDB_env* env_;
  MDB_txn* txn_;
  const std::uint32_t* tables_;
  TouchedKeys* touched_ = nullptr;
  std::shared_ptr<const Overlay> overlay_;  // shared with the environment and other readers
};

// Walks a table in byte order of keys, the overlay's rows among LMDB's. Must not outlive its Txn.
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
  Cursor(MDB_cursor* cursor, const Overlay::Rows* rows) : cursor_(cursor), rows_(rows) {}
  Cursor(const Cursor&) = default;
  Status move(int operation, ByteSpan key);
  Result<bool> settle();

  MDB_cursor* cursor_;
  const Overlay::Rows* rows_;  // null: none
  Overlay::Rows::const_iterator row_;
  bool there_ = false;                     // LMDB's cursor is on a row
  bool on_row_ = false, on_lmdb_ = false;  // what the present key is of; both: the row counts
  ByteSpan lmdb_key_, lmdb_value_;
  ByteSpan key_, value_;
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

  // What the open write transaction has changed, for those who begin to read from now on, until it
  // commits; null: nothing.
  void show(std::shared_ptr<const Overlay> overlay);

 private:
  explicit Environment(MDB_env* env) : env_(env) {}
  Status open_tables();

  MDB_env* env_;
  std::uint32_t tables_[kTables] = {};
  std::mutex mutex_;                        // guards overlay_
  std::shared_ptr<const Overlay> overlay_;  // shared with readers
};

}  // namespace kvfs::store
