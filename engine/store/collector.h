// Gives back what nothing refers to: first blocks, then, by mark and sweep, chunks.
//
// A pass drops the orphaned blocks that nothing pins, marks the chunks of all blocks that are left,
// and sweeps the rest, each in small transactions between which jobs go on; what is put or hit
// meanwhile is spared (ChunkTable's marks). Passes run one at a time: on a thread of its own soon
// after blocks were orphaned, or in collect().
// Threads: any.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <unordered_set>
#include <vector>

#include "engine/store/block_pins.h"
#include "engine/store/chunks.h"
#include "engine/store/writer.h"

namespace kvfs::store {

class Collector {
 public:
  Collector(Environment& environment, Writer& writer, ChunkTable& chunks, BlockPins& pins);
  ~Collector();
  Collector(const Collector&) = delete;
  Collector& operator=(const Collector&) = delete;

  // Ends the thread and what passes are under way. Before the Writer stops; orphaned() may still
  // come.
  void stop();
  // These blocks may have lost what kept them.
  void orphaned(const std::vector<BlockId>& blocks);
  // A whole pass, now; the encoded bytes freed.
  Result<std::uint64_t> collect();

 private:
  using ChunkSet = std::unordered_set<ChunkId>;
  void loop();
  Result<std::uint64_t> pass(bool always_sweep);
  Status stay_unless_stopping();
  Result<std::size_t> drop_blocks();
  Result<std::uint64_t> sweep_chunks();
  Result<ChunkSet> mark();
  Result<std::uint64_t> sweep(const ChunkSet& live);

  Environment& environment_;
  Writer& writer_;
  ChunkTable& chunks_;
  BlockPins& pins_;

  std::mutex pass_mutex_;  // held during a pass; taken before mutex_
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<BlockId> candidates_;  // guarded by mutex_
  bool stop_ = false;                // guarded by mutex_
  std::thread thread_;
};

}  // namespace kvfs::store
