// What keeps a block alive besides the versions that list it, counted. In memory alone: after a
// crash a block without references is garbage. Any thread.
#pragma once

#include <mutex>
#include <unordered_map>
#include <unordered_set>

#include "codec/base/ids.h"

namespace kvfs::store {

class BlockPins {
 public:
  bool pin(BlockId id);  // false when the block is dying
  // Writer thread: that the block is there proves that it is not dying.
  void pin_added(BlockId id);
  // True when that was the last one.
  bool unpin(BlockId id);

  // False while something keeps the block; else it is dying until dead() and cannot be pinned.
  bool kill(BlockId id);
  void dead(BlockId id);

 private:
  std::mutex mutex_;
  std::unordered_map<BlockId, std::uint32_t> pins_;  // guarded by mutex_
  std::unordered_set<BlockId> dying_;                // guarded by mutex_
};

}  // namespace kvfs::store
