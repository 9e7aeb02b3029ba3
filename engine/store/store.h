// The store: content-addressed KV in LMDB, states that name it, jobs that change it.
//
// Threads: every reading method may be called from any thread; each runs in a short read
// transaction of its own and copies out, so no reader is ever open across a wait. All writes happen
// on one writer thread: write() hands it a function and returns when the transaction that ran it is
// on disk (several functions may share one commit); write_async() calls `done` from the writer
// thread then, write_soon() before. A function that returns an error leaves the store as it was,
// and the functions that share its commit untouched. Neither it nor `done` may call write(),
// add_block() or collect(): they would wait for themselves, and get kInternal instead. Failure:
// kBusy (another daemon), kCorrupt (names chunk or record), kNoSpace, kUnsupported (a store of a
// newer format), kIo. Ownership: the Store owns the environment; destroy it after all users, which
// waits for the writes that are queued. Never fork a process that has a Store open.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "codec/chunk/stored_piece.h"
#include "engine/store/block_pin.h"
#include "engine/store/changes.h"
#include "engine/store/records.h"

namespace kvfs::store {

class WriteTransaction;

struct StoreOptions {
  std::filesystem::path directory;
  std::uint64_t map_bytes = std::uint64_t{4} << 40;
  int codec_threads = 2;
};

struct NameEntry {
  enum class Kind : std::uint8_t { kState = 0, kFile = 1, kSymlink = 2 } kind = Kind::kState;
  std::string name;
  StateId state;  // kState
  FileId file;    // the others
};

// The stored form of a slice of a piece, [heads, positions, width]: who gives it has decoded it.
struct KnownEncoding {
  chunk::ShapeClass shape;
  chunk::CodecId codec = chunk::CodecId::kRaw;
  ByteSpan bytes;
};

// A block to add: tokens of one block and, per layer, the pieces that hold their KV (fewer
// positions than tokens where it was pruned).
struct NewBlock {
  std::int32_t index = 0;
  std::vector<BlockToken> tokens;
  std::string text;
  std::vector<KvPiece> pieces;  // layer-major, every layer of the model
  BlockKey previous_key;
  BlockKey key;  // zero: keep it out of the prefix index
  // Of each piece its key's slices, then its value's, in the order of heads; empty: unknown. Where
  // the store cuts a piece so too and wants that codec, nothing is encoded anew.
  std::vector<std::vector<KnownEncoding>> encodings;
};

struct StoreStatistics {
  std::uint64_t states = 0, versions = 0, blocks = 0, chunks = 0;
  std::uint64_t bytes_logical = 0;  // decoded KV, counted once per state
  std::uint64_t bytes_unique = 0;   // decoded KV, each chunk once
  std::uint64_t bytes_stored = 0;   // encoded
  bool operator==(const StoreStatistics&) const = default;
};

struct VerifyReport {
  std::uint64_t chunks = 0, blocks = 0, versions = 0, states = 0;
  std::vector<std::string> problems;  // one sentence each; empty: sound
};

class Store {
 public:
  // Creates the directory (0700) and the tables where missing.
  static Result<std::unique_ptr<Store>> open(const StoreOptions& options);
  ~Store();

  // --- reading, any thread -------------------------------------------------------------------
  Result<StateRecord> state(StateId id);
  Result<NameEntry> lookup(StateId parent, std::string_view name);
  // Entries of a directory in byte order of names, those after `after`, at most limit.
  Result<std::vector<NameEntry>> list(StateId parent, std::string_view after, std::size_t limit);
  Result<VersionRecord> version(VersionId id);
  Result<BlockRecord> block(BlockId id);
  // In the order asked for; touches none of the blocks' tensors.
  Result<std::vector<BlockSummary>> summaries(const std::vector<BlockId>& ids);
  // Decodes into out (the shape's size); the encoded bytes' checksum is checked on every call.
  Status read_chunk(const ChunkId& id, const chunk::ShapeClass& shape, MutableByteSpan out);
  // As it is kept: its header and its encoded bytes (docs/FORMAT.md), which nobody has checked.
  Result<Bytes> stored_chunk(const ChunkId& id);
  // A segment's KV as one piece, in the memory of used, a piece that nobody needs any more.
  Result<KvPiece> read_segment(const Segment& segment, KvPiece used = {});
  // The same, as it is kept, for who decodes it: its checksums are checked.
  Result<chunk::StoredPiece> read_stored_segment(const Segment& segment,
                                                 chunk::StoredPiece used = {});
  // The block under key, when its tokens (ids and positions) and the key before it really are
  // these.
  std::optional<BlockId> find_prefix(const BlockKey& previous_key, const BlockKey& key,
                                     const std::vector<BlockToken>& tokens);
  Result<JobRecord> job(JobId id);
  Result<std::vector<std::pair<JobId, JobRecord>>> jobs();                  // ascending id
  Result<std::vector<std::pair<JobId, JobRecord>>> jobs_of(StateId state);  // ascending id
  Result<FileRecord> file(StateId state, FileArea area, std::string_view name);
  Result<std::vector<std::string>> files(StateId state, FileArea area);
  // Why the state cannot be removed: it is pinned, or children, snapshots or files are in the way.
  Status removable(StateId id);
  // A state's snapshots, in byte order of names.
  Result<StateId> snapshot(StateId of, std::string_view name);
  Result<std::vector<NameEntry>> snapshots(StateId of);
  // Users' files. Those beside a state are found by lookup() and list(), with its children.
  Result<FileNode> node(FileId id);
  Result<std::optional<Bytes>> piece(FileId id, std::uint64_t number);  // nothing: not there
  // The first piece from `from` on that is there.
  Result<std::optional<std::uint64_t>> next_piece(FileId id, std::uint64_t from);
  // What is being copied onto a state's data, in byte order of paths.
  Result<NameEntry> staged(StateId state, std::string_view path);
  Result<std::vector<NameEntry>> staged(StateId state);
  Result<std::vector<StateId>> states_with_staged();
  StoreStatistics statistics();
  // Reads everything: checksums, references, counts. Jobs may run meanwhile.
  Result<VerifyReport> verify();

  // --- writing -------------------------------------------------------------------------------
  // Encodes, deduplicates (byte compare on a hit) and stores a block's chunks and its record. It
  // lives while its pin does, then while a version lists it. Durable only with that version.
  // Encoding and hashing run in the codec pool; the caller waits. Equal blocks give one id.
  Result<BlockPin> add_block(const NewBlock& block, DType dtype, chunk::CodecId codec);
  // Nothing when the block is gone: as if never found.
  std::optional<BlockPin> pin(BlockId id);

  Status write(const std::function<Status(WriteTransaction&)>& body);
  // weight: about the bytes it will write, which bounds what shares its commit.
  void write_async(std::function<Status(WriteTransaction&)> body, std::function<void(Status)> done,
                   std::size_t weight = 0);
  // `done` comes when every reader sees it; on disk it is 100 ms later, or with the next write()
  // that ends well. A crash may take it back, never out of order.
  void write_soon(std::function<Status(WriteTransaction&)> body, std::function<void(Status)> done);

  // From now on until unwatch(), which waits for a call that is running. Any thread but the
  // writer's.
  std::uint64_t watch(Watcher watcher);
  void unwatch(std::uint64_t watch);

  // Frees chunks and blocks that nothing refers to, in small transactions; jobs may run meanwhile.
  // Returns the encoded bytes freed. Also runs by itself soon after references were dropped.
  Result<std::uint64_t> collect();

 private:
  friend class BlockPin;
  struct Impl;
  explicit Store(std::unique_ptr<Impl> impl);
  void unpin(BlockId id);

  std::unique_ptr<Impl> impl_;
};

// Chained key of a block: everything that decides its bits.
struct PrefixScope {  // what a chain starts from
  ModelFingerprint fingerprint;
  std::string kernel_class;
  DType kv_dtype = DType::kBF16;
  std::optional<std::uint32_t> owner;  // none: shared by all owners
};
BlockKey first_key(const PrefixScope& scope);
// one_path: read and generated tokens have the same bits, so the path stays out of the key.
BlockKey next_key(const BlockKey& previous, const std::vector<BlockToken>& tokens, bool one_path);

}  // namespace kvfs::store
