#include "engine/store/collector.h"

#include <algorithm>
#include <future>
#include <span>

#include "codec/base/log.h"
#include "engine/store/blocks.h"
#include "engine/store/keys.h"
#include "engine/store/layouts.h"

namespace kvfs::store {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kGather = std::chrono::milliseconds(200);  // references tend to go in bursts
constexpr int kRest = 9;  // a pass takes at most a tenth of the time
constexpr auto kRetry = std::chrono::seconds(10);
constexpr std::size_t kBlocksAtOnce = 64;  // a transaction's
constexpr std::size_t kChunksAtOnce = 256;
constexpr std::size_t kKeysAtOnce = 4096;  // a read's

}  // namespace

Collector::Collector(Environment& environment, Writer& writer, ChunkTable& chunks, BlockPins& pins)
    : environment_(environment), writer_(writer), chunks_(chunks), pins_(pins), thread_([this] {
        loop();
      }) {}

Collector::~Collector() { stop(); }

void Collector::stop() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Collector::orphaned(const std::vector<BlockId>& blocks) {
  if (blocks.empty()) return;
  {
    std::lock_guard lock(mutex_);
    candidates_.insert(candidates_.end(), blocks.begin(), blocks.end());
  }
  wake_.notify_all();
}

Result<std::uint64_t> Collector::collect() {
  if (writer_.on_writer_thread()) {
    return fail(ErrorCode::kInternal, "collect", "the writer would wait for itself");
  }
  return pass(true);
}

void Collector::loop() {
  auto rest = Clock::duration::zero();
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [&] { return stop_ || !candidates_.empty(); });
    const auto stopping = [&] { return stop_; };
    if (wake_.wait_for(lock, std::max<Clock::duration>(kGather, rest), stopping)) return;
    lock.unlock();
    const auto start = Clock::now();
    const auto freed = pass(false);
    rest = kRest * (Clock::now() - start);
    if (!freed && freed.error().code != ErrorCode::kInterrupted) {
      KVFS_WARN("collector: {}", freed.error().message());
      rest = std::max<Clock::duration>(rest, kRetry);
    }
    lock.lock();
  }
}

Status Collector::stay_unless_stopping() {
  std::lock_guard lock(mutex_);
  if (stop_) return fail(ErrorCode::kInterrupted, "collect", "the store is being closed");
  return {};
}

Result<std::uint64_t> Collector::pass(bool always_sweep) {
  std::lock_guard pass_lock(pass_mutex_);
  KVFS_ASSIGN(const std::size_t dropped, drop_blocks());
  if (dropped == 0 && !always_sweep) return 0;
  return sweep_chunks();
}

// Returns the number of blocks dropped. Those that something keeps are forgotten here: they come
// back when that lets go of them.
Result<std::size_t> Collector::drop_blocks() {
  std::vector<BlockId> candidates;
  {
    std::lock_guard lock(mutex_);
    candidates.swap(candidates_);
  }
  std::sort(candidates.begin(), candidates.end());
  candidates.erase(std::unique(candidates.begin(), candidates.end()), candidates.end());
  std::size_t dropped = 0;
  for (std::span<const BlockId> rest(candidates); !rest.empty();) {
    const auto batch = rest.first(std::min(kBlocksAtOnce, rest.size()));
    rest = rest.subspan(batch.size());
    std::vector<BlockId> dying;
    const Status status = writer_.run([&](Txn& txn) -> Status {
      KVFS_ASSIGN(Counters counters, load_counters(txn));
      for (BlockId id : batch) {
        const auto references = read_references(txn, id);
        if (!references && references.error().code == ErrorCode::kNotFound) continue;
        if (!references) return fail(references.error());
        if (*references != 0 || !pins_.kill(id)) continue;
        dying.push_back(id);
        KVFS_TRY(erase_block(txn, counters, id));
      }
      return dying.empty() ? Status() : save_counters(txn, counters);
    });
    for (BlockId id : dying) pins_.dead(id);
    if (!status) {
      orphaned({batch.begin(), batch.end()});
      orphaned({rest.begin(), rest.end()});
      return fail(status.error());
    }
    dropped += dying.size();
  }
  return dropped;
}

Result<std::uint64_t> Collector::sweep_chunks() {
  // The marks change on the writer thread, between transactions: each block is either seen by
  // mark() or had its chunks noted.
  KVFS_TRY(writer_.run([&](Txn&) -> Status {
    chunks_.begin_mark();
    return {};
  }));
  Result<std::uint64_t> freed = 0;
  if (const auto live = mark()) {
    freed = sweep(*live);
  } else {
    freed = fail(live.error());
  }
  KVFS_TRY(writer_.run([&](Txn& txn) -> Status {
    chunks_.end_mark();
    if (!freed || *freed == 0) return {};
    // LMDB gives freed pages out only two commits later: on a full disk this one opens the way.
    KVFS_ASSIGN(const Counters counters, load_counters(txn));
    return save_counters(txn, counters);
  }));
  return freed;
}

// In slices, so that no reader stays open for long. A block dropped meanwhile only spares its
// chunks.
Result<Collector::ChunkSet> Collector::mark() {
  ChunkSet live;
  Bytes from;
  for (bool more = true; more;) {
    KVFS_TRY(stay_unless_stopping());
    KVFS_ASSIGN(const Txn txn, environment_.begin_read());
    KVFS_ASSIGN(Cursor cursor, Cursor::open(txn, Table::kBlocks));
    KVFS_ASSIGN(more, cursor.seek(from));
    for (std::size_t i = 0; more && i < kKeysAtOnce; ++i) {
      KVFS_ASSIGN(const BlockRecord block, decode_block(cursor.value(), "a block"));
      for (const Segment& segment : block.segments) {
        live.insert(segment.key_chunks.begin(), segment.key_chunks.end());
        live.insert(segment.value_chunks.begin(), segment.value_chunks.end());
      }
      KVFS_ASSIGN(more, cursor.next());
    }
    if (more) from.assign(cursor.key().begin(), cursor.key().end());
  }
  return live;
}

Result<std::uint64_t> Collector::sweep(const ChunkSet& live) {
  std::uint64_t freed = 0;
  Bytes from;
  for (bool more = true; more;) {
    KVFS_TRY(stay_unless_stopping());
    std::vector<ChunkId> garbage;
    {
      KVFS_ASSIGN(const Txn txn, environment_.begin_read());
      KVFS_ASSIGN(Cursor cursor, Cursor::open(txn, Table::kChunks));
      KVFS_ASSIGN(more, cursor.seek(from));
      for (std::size_t i = 0; more && i < kKeysAtOnce && garbage.size() < kChunksAtOnce; ++i) {
        ChunkId id;
        if (cursor.key().size() != id.bytes.size()) {
          return fail(ErrorCode::kCorrupt, "the table of chunks", "a key has the wrong length");
        }
        std::copy(cursor.key().begin(), cursor.key().end(), id.bytes.begin());
        if (!live.contains(id)) garbage.push_back(id);
        KVFS_ASSIGN(more, cursor.next());
      }
      if (more) from.assign(cursor.key().begin(), cursor.key().end());
    }
    if (garbage.empty()) continue;
    std::uint64_t bytes = 0;
    std::promise<Status> swept;
    writer_.submit(
        [&](Txn& txn) -> Status {
          KVFS_ASSIGN(Counters counters, load_counters(txn));
          KVFS_ASSIGN(bytes, chunks_.sweep(txn, counters, garbage));
          return save_counters(txn, counters);
        },
        [&](Status status) {
          chunks_.swept();
          swept.set_value(std::move(status));
        });
    KVFS_TRY(swept.get_future().get());
    freed += bytes;
  }
  return freed;
}

}  // namespace kvfs::store
