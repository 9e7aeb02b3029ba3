#include "engine/store/block_pins.h"

namespace kvfs::store {

void BlockPins::added(BlockId id) {
  std::lock_guard lock(mutex_);
  ++holds_[id].additions;
}

bool BlockPins::found(BlockId id) {
  std::lock_guard lock(mutex_);
  if (dying_.contains(id)) return false;
  ++holds_[id].additions;
  return true;
}

void BlockPins::not_added(BlockId id) { referred({&id, 1}); }

bool BlockPins::pin(BlockId id) {
  std::lock_guard lock(mutex_);
  if (dying_.contains(id)) return false;
  Holds& holds = holds_[id];
  ++holds.pins;
  if (holds.additions > 0) --holds.additions;
  return true;
}

bool BlockPins::unpin(BlockId id) {
  std::lock_guard lock(mutex_);
  const auto it = holds_.find(id);
  if (it == holds_.end() || it->second.pins == 0) return false;
  --it->second.pins;
  forget_if_free(id);
  return !holds_.contains(id);
}

void BlockPins::referred(std::span<const BlockId> ids) {
  std::lock_guard lock(mutex_);
  for (BlockId id : ids) {
    const auto it = holds_.find(id);
    if (it == holds_.end()) continue;
    if (it->second.additions > 0) --it->second.additions;
    forget_if_free(id);
  }
}

bool BlockPins::kill(BlockId id) {
  std::lock_guard lock(mutex_);
  if (holds_.contains(id)) return false;
  dying_.insert(id);
  return true;
}

void BlockPins::dead(BlockId id) {
  std::lock_guard lock(mutex_);
  dying_.erase(id);
}

void BlockPins::forget_if_free(BlockId id) {
  const auto it = holds_.find(id);
  if (it->second.pins == 0 && it->second.additions == 0) holds_.erase(it);
}

}  // namespace kvfs::store
