#include "engine/store/store.h"

#include <future>
#include <limits>
#include <memory>

#include "codec/base/log.h"
#include "engine/store/block_builder.h"
#include "engine/store/block_pins.h"
#include "engine/store/blocks.h"
#include "engine/store/codec_pool.h"
#include "engine/store/collector.h"
#include "engine/store/file_nodes.h"
#include "engine/store/files.h"
#include "engine/store/jobs.h"
#include "engine/store/keys.h"
#include "engine/store/states.h"
#include "engine/store/store_lock.h"
#include "engine/store/verifier.h"
#include "engine/store/versions.h"
#include "engine/store/watchers.h"
#include "engine/store/write_transaction.h"
#include "engine/store/writer.h"

namespace kvfs::store {
namespace {

constexpr std::size_t kTransactionBytes = std::size_t{64} << 20;  // LMDB spills beyond

Status make_directory(const std::filesystem::path& directory) {
  std::error_code error;
  const bool made = std::filesystem::create_directories(directory, error);
  if (!error && made) {
    std::filesystem::permissions(directory, std::filesystem::perms::owner_all, error);
  }
  if (!error) return {};
  return fail(ErrorCode::kPermission, "create the store " + directory.string(), error.message(),
              "name a --store where the daemon's user may write");
}

// What a crash left: blocks that no version came to refer to.
Result<std::vector<BlockId>> unreferenced_blocks(Environment& environment) {
  std::vector<BlockId> blocks;
  KVFS_ASSIGN(const Txn txn, environment.begin_read());
  KVFS_ASSIGN(Cursor cursor, Cursor::open(txn, Table::kBlockReferences));
  KVFS_ASSIGN(bool found, cursor.seek({}));
  while (found) {
    ByteReader in(cursor.value());
    if (in.number<std::uint32_t>() == 0) blocks.push_back(id_from_key<BlockId>(cursor.key()));
    KVFS_ASSIGN(found, cursor.next());
  }
  return blocks;
}

}  // namespace

struct Store::Impl {
  Impl(StoreLock taken, std::unique_ptr<Environment> opened, int codec_threads)
      : lock(std::move(taken)),
        environment(std::move(opened)),
        chunks(*environment),
        pool(codec_threads),
        writer(*environment),
        collector(*environment, writer, chunks, pins) {}
  ~Impl() {  // the last writes still tell the collector what they orphaned
    collector.stop();
    writer.stop();
  }

  // Runs read(txn) in a transaction of its own.
  template <class Read>
  auto reading(Read read) -> decltype(read(std::declval<const Txn&>())) {
    KVFS_ASSIGN(const Txn txn, environment->begin_read());
    return read(txn);
  }
  void write(std::function<Status(WriteTransaction&)> body, Writer::Done done, std::size_t weight,
             Kept kept);

  // In order of construction; each uses those above it.
  StoreLock lock;
  std::unique_ptr<Environment> environment;
  ChunkTable chunks;
  BlockPins pins;
  Watchers<Change> watchers;
  CodecPool pool;
  Writer writer;
  Collector collector;
};

Store::Store(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Store::~Store() = default;

Result<std::unique_ptr<Store>> Store::open(const StoreOptions& options) {
  KVFS_TRY(make_directory(options.directory));
  KVFS_ASSIGN(StoreLock lock, StoreLock::take(options.directory));
  KVFS_ASSIGN(auto environment, Environment::open(options.directory, options.map_bytes));
  {
    KVFS_ASSIGN(Txn txn, environment->begin_write());
    KVFS_TRY(check_format(txn));
    KVFS_ASSIGN(Counters counters, load_counters(txn));
    TransactionScope scope{.txn = txn, .counters = counters};
    KVFS_TRY(reap_unlinked(scope));
    KVFS_TRY(finish_transaction(scope));
    KVFS_TRY(txn.commit());
  }
  KVFS_ASSIGN(const auto leftovers, unreferenced_blocks(*environment));
  auto impl =
      std::make_unique<Impl>(std::move(lock), std::move(environment), options.codec_threads);
  impl->collector.orphaned(leftovers);
  return std::unique_ptr<Store>(new Store(std::move(impl)));
}

// --- reading ------------------------------------------------------------------------------------

Result<StateRecord> Store::state(StateId id) {
  return impl_->reading([&](const Txn& txn) { return read_state(txn, id); });
}

Result<NameEntry> Store::lookup(StateId parent, std::string_view name) {
  return impl_->reading([&](const Txn& txn) { return read_name(txn, parent, name); });
}

Result<std::vector<NameEntry>> Store::list(StateId parent, std::string_view after,
                                           std::size_t limit) {
  return impl_->reading([&](const Txn& txn) { return list_names(txn, parent, after, limit); });
}

Result<VersionRecord> Store::version(VersionId id) {
  return impl_->reading([&](const Txn& txn) { return read_version(txn, id); });
}

Result<BlockRecord> Store::block(BlockId id) {
  return impl_->reading([&](const Txn& txn) { return read_block(txn, id); });
}

Result<std::vector<BlockSummary>> Store::summaries(const std::vector<BlockId>& ids) {
  return impl_->reading([&](const Txn& txn) -> Result<std::vector<BlockSummary>> {
    std::vector<BlockSummary> out;
    for (BlockId id : ids) {
      KVFS_ASSIGN(BlockSummary summary, read_summary(txn, id));
      out.push_back(std::move(summary));
    }
    return out;
  });
}

Status Store::read_chunk(const ChunkId& id, const chunk::ShapeClass& shape, MutableByteSpan out) {
  return impl_->reading([&](const Txn& txn) { return impl_->chunks.read(txn, id, shape, out); });
}

Result<Bytes> Store::stored_chunk(const ChunkId& id) {
  return impl_->reading([&](const Txn& txn) { return impl_->chunks.stored(txn, id); });
}

Result<KvPiece> Store::read_segment(const Segment& segment, KvPiece used) {
  KvPiece piece = std::move(used);
  piece.layer = segment.layer;
  piece.head_begin = segment.head_begin;
  piece.head_count = segment.head_count;
  piece.positions = segment.positions;
  piece.kind = segment.kind;
  return impl_->reading([&](const Txn& txn) -> Result<KvPiece> {
    const auto fill = [&](const std::vector<ChunkId>& ids, const chunk::ShapeClass& shape,
                          Bytes& out) -> Status {
      const std::size_t size = shape.byte_size();
      out.resize(size * ids.size());
      for (std::size_t i = 0; i < ids.size(); ++i) {
        KVFS_TRY(
            impl_->chunks.read(txn, ids[i], shape, MutableByteSpan(out).subspan(i * size, size)));
      }
      return {};
    };
    KVFS_TRY(fill(segment.key_chunks, segment.key_shape, piece.key));
    KVFS_TRY(fill(segment.value_chunks, segment.value_shape, piece.value));
    return std::move(piece);
  });
}

Result<chunk::StoredPiece> Store::read_stored_segment(const Segment& segment,
                                                      chunk::StoredPiece used) {
  chunk::StoredPiece piece = std::move(used);
  piece.layer = segment.layer;
  piece.head_begin = segment.head_begin;
  piece.head_count = segment.head_count;
  piece.positions = segment.positions;
  piece.bytes.clear();
  return impl_->reading([&](const Txn& txn) -> Result<chunk::StoredPiece> {
    const auto fill = [&](const std::vector<ChunkId>& ids, const chunk::ShapeClass& shape,
                          std::vector<chunk::StoredChunk>& chunks) -> Status {
      chunks.clear();
      for (const ChunkId& id : ids) {
        KVFS_ASSIGN(chunks.emplace_back(),
                    impl_->chunks.append_stored(txn, id, shape, piece.bytes));
      }
      return {};
    };
    KVFS_TRY(fill(segment.key_chunks, segment.key_shape, piece.keys));
    KVFS_TRY(fill(segment.value_chunks, segment.value_shape, piece.values));
    return std::move(piece);
  });
}

std::optional<BlockId> Store::find_prefix(const BlockKey& previous_key, const BlockKey& key,
                                          const std::vector<BlockToken>& tokens) {
  const auto found = impl_->reading(
      [&](const Txn& txn) { return store::find_prefix(txn, previous_key, key, tokens); });
  // A damaged index entry costs time, not the job: its tokens are computed anew.
  if (!found) KVFS_WARN("prefix index: {}", found.error().message());
  return found ? *found : std::nullopt;
}

Result<JobRecord> Store::job(JobId id) {
  return impl_->reading([&](const Txn& txn) { return read_job(txn, id); });
}

Result<std::vector<std::pair<JobId, JobRecord>>> Store::jobs() {
  return impl_->reading([&](const Txn& txn) { return read_jobs(txn); });
}

Result<std::vector<std::pair<JobId, JobRecord>>> Store::jobs_of(StateId state) {
  return impl_->reading([&](const Txn& txn) { return read_jobs_of(txn, state); });
}

Result<FileRecord> Store::file(StateId state, FileArea area, std::string_view name) {
  return impl_->reading([&](const Txn& txn) { return read_file(txn, state, area, name); });
}

Result<std::vector<std::string>> Store::files(StateId state, FileArea area) {
  return impl_->reading([&](const Txn& txn) { return list_files(txn, state, area); });
}

Status Store::removable(StateId id) {
  return impl_->reading([&](const Txn& txn) -> Status {
    KVFS_ASSIGN(const StateRecord state, read_state(txn, id));
    return require_removable(txn, id, state);
  });
}

Result<StateId> Store::snapshot(StateId of, std::string_view name) {
  return impl_->reading([&](const Txn& txn) { return read_snapshot(txn, of, name); });
}

Result<std::vector<NameEntry>> Store::snapshots(StateId of) {
  return impl_->reading([&](const Txn& txn) {
    return list_snapshots(txn, of, std::numeric_limits<std::size_t>::max());
  });
}

Result<FileNode> Store::node(FileId id) {
  return impl_->reading([&](const Txn& txn) { return read_node(txn, id); });
}

Result<std::optional<Bytes>> Store::piece(FileId id, std::uint64_t number) {
  return impl_->reading([&](const Txn& txn) { return read_piece(txn, id, number); });
}

Result<std::optional<std::uint64_t>> Store::next_piece(FileId id, std::uint64_t from) {
  return impl_->reading([&](const Txn& txn) { return find_piece(txn, id, from); });
}

Result<NameEntry> Store::staged(StateId state, std::string_view path) {
  return impl_->reading([&](const Txn& txn) { return read_staged(txn, state, path); });
}

Result<std::vector<NameEntry>> Store::staged(StateId state) {
  return impl_->reading([&](const Txn& txn) { return list_staged(txn, state); });
}

Result<std::vector<StateId>> Store::states_with_staged() {
  return impl_->reading([&](const Txn& txn) { return list_staging_states(txn); });
}

StoreStatistics Store::statistics() {
  const auto counters = impl_->reading([&](const Txn& txn) { return load_counters(txn); });
  if (!counters) KVFS_ERROR("statistics: {}", counters.error().message());
  return counters ? counters->statistics : StoreStatistics{};
}

Result<VerifyReport> Store::verify() { return store::verify(*impl_->environment, impl_->chunks); }

// --- writing ------------------------------------------------------------------------------------

Result<BlockPin> Store::add_block(const NewBlock& block, DType dtype, chunk::CodecId codec) {
  KVFS_ASSIGN(BlockBuilder builder,
              BlockBuilder::prepare(block, dtype, codec, impl_->chunks, impl_->pool));
  if (const BlockRecord* record = builder.known_record()) {
    const auto found = impl_->reading([&](const Txn& txn) { return find_block(txn, *record); });
    if (found && *found) {
      if (auto kept = pin(**found)) return *std::move(kept);
    }
  }
  std::size_t weight = builder.weight();
  if (weight > kTransactionBytes) {
    for (std::size_t first = 0; first < builder.chunk_count();) {
      KVFS_TRY(impl_->writer.run(
          [&](Txn& txn) -> Status {
            KVFS_ASSIGN(first, builder.put_part(txn, impl_->chunks, first, kTransactionBytes));
            return {};
          },
          kTransactionBytes));
    }
    weight = 0;
  }
  BlockPin added;
  KVFS_TRY(impl_->writer.run(
      [&](Txn& txn) -> Status {
        KVFS_ASSIGN(const BlockId id, builder.put(txn, impl_->chunks));
        impl_->pins.pin_added(id);
        added = BlockPin(*this, id);
        return {};
      },
      weight));
  return added;
}

std::optional<BlockPin> Store::pin(BlockId id) {
  if (!impl_->pins.pin(id)) return std::nullopt;
  BlockPin kept(*this, id);
  // It may have died between the look and the pin; from now on it cannot.
  const auto alive = impl_->reading([&](const Txn& txn) { return read_references(txn, id); });
  if (!alive) return std::nullopt;
  return kept;
}

void Store::unpin(BlockId id) {
  if (!impl_->pins.unpin(id)) return;
  const auto references = impl_->reading([&](const Txn& txn) { return read_references(txn, id); });
  if (references && *references == 0) impl_->collector.orphaned({id});
}

BlockPin::~BlockPin() {
  if (store_ != nullptr) store_->unpin(id_);
}

Status Store::write(const std::function<Status(WriteTransaction&)>& body) {
  if (impl_->writer.on_writer_thread()) {
    return fail(ErrorCode::kInternal, "write to the store", "a write would wait for itself");
  }
  std::promise<Status> outcome;
  impl_->write(
      body, [&](Status status) { outcome.set_value(std::move(status)); }, 0, Kept::kNow);
  return outcome.get_future().get();
}

void Store::write_async(std::function<Status(WriteTransaction&)> body,
                        std::function<void(Status)> done, std::size_t weight) {
  impl_->write(std::move(body), std::move(done), weight, Kept::kNow);
}

void Store::write_soon(std::function<Status(WriteTransaction&)> body,
                       std::function<void(Status)> done) {
  impl_->write(std::move(body), std::move(done), 0, Kept::kSoon);
}

std::uint64_t Store::watch(Watcher watcher) { return impl_->watchers.add(std::move(watcher)); }
void Store::unwatch(std::uint64_t watch) { impl_->watchers.remove(watch); }

void Store::Impl::write(std::function<Status(WriteTransaction&)> body, Writer::Done done,
                        std::size_t weight, Kept kept) {
  struct Left {  // by the transaction, for after its commit
    std::vector<BlockId> orphans;
    std::vector<Change> changes;
  };
  // Owned by the task's two functions, which std::function wants to be copyable.
  auto left = std::make_shared<Left>();
  writer.submit(
      [this, body = std::move(body), left](Txn& txn) -> Status {
        KVFS_ASSIGN(Counters counters, load_counters(txn));
        TransactionScope scope{.txn = txn, .counters = counters, .watched = watchers.any()};
        WriteTransaction transaction(scope);
        KVFS_TRY(body(transaction));
        KVFS_TRY(finish_transaction(scope));
        *left = {std::move(scope.orphans), std::move(scope.changes)};
        return {};
      },
      [this, done = std::move(done), left](Status status) {
        if (status) {
          collector.orphaned(left->orphans);
          watchers.tell(left->changes);
        }
        done(std::move(status));
      },
      weight, kept);
}

Result<std::uint64_t> Store::collect() { return impl_->collector.collect(); }

}  // namespace kvfs::store
