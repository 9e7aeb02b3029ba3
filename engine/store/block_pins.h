// What keeps a block alive besides the versions that list it: pins, and having just been added.
// In memory alone: after a crash a block without references is garbage. Any thread.
#pragma once

#include <mutex>
#include <span>
#include <unordered_map>
#include <unordered_set>

#include "codec/base/ids.h"

namespace kvfs::store {

class BlockPins {
 public:
  // The block was added, and nobody has referred to it since. Writer thread: that the block is
  // there proves that it is not dying.
  void added(BlockId id);
  // The same for one that was found instead of added, on any thread. False when dying.
  bool found(BlockId id);
  void not_added(BlockId id);  // takes it back: the transaction failed
  // A pin takes the place of one addition. False when dying.
  bool pin(BlockId id);
  // True when nothing here keeps the block any longer.
  bool unpin(BlockId id);
  // Versions on disk refer to the blocks now: that takes the place of one addition each.
  void referred(std::span<const BlockId> ids);

  // False while something keeps the block; else it is dying until dead() and cannot be pinned.
  bool kill(BlockId id);
  void dead(BlockId id);

 private:
  struct Holds {
    std::uint32_t additions = 0;
    std::uint32_t pins = 0;
  };
  void forget_if_free(BlockId id);

  std::mutex mutex_;
  std::unordered_map<BlockId, Holds> holds_;  // guarded by mutex_
  std::unordered_set<BlockId> dying_;         // guarded by mutex_
};

}  // namespace kvfs::store
