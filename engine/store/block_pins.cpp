#include "engine/store/block_pins.h"

namespace kvfs::store {

bool BlockPins::pin(BlockId id) {
  std::lock_guard lock(mutex_);
  if (dying_.contains(id)) return false;
  ++pins_[id];
  return true;
}

void BlockPins::pin_added(BlockId id) {
  std::lock_guard lock(mutex_);
  ++pins_[id];
}

bool BlockPins::unpin(BlockId id) {
  std::lock_guard lock(mutex_);
  const auto it = pins_.find(id);
  if (it == pins_.end() || --it->second > 0) return false;
  pins_.erase(it);
  return true;
}

bool BlockPins::kill(BlockId id) {
  std::lock_guard lock(mutex_);
  if (pins_.contains(id)) return false;
  dying_.insert(id);
  return true;
}

void BlockPins::dead(BlockId id) {
  std::lock_guard lock(mutex_);
  dying_.erase(id);
}

}  // namespace kvfs::store
