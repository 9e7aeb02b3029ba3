#include "fs/node_table.h"

#include <utility>

namespace kvfs::fs {

NodePtr NodeTable::remember(NodePtr node) {
  const Ino ino = node->ino();
  const StateId state = node->state();
  const std::lock_guard lock(mutex_);
  Known& known = known_[ino];
  if (!known.node) {
    known.node = std::move(node);
    if (state) of_state_[state].push_back(ino);
  }
  ++known.lookups;
  return known.node;
}

void NodeTable::forget(Ino ino, std::uint64_t count) {
  NodePtr dropped;  // destroyed outside the lock
  const std::lock_guard lock(mutex_);
  const auto it = known_.find(ino);
  if (it == known_.end()) return;
  if (it->second.lookups > count) {
    it->second.lookups -= count;
    return;
  }
  dropped = std::move(it->second.node);
  known_.erase(it);
  if (const auto of = of_state_.find(dropped->state()); of != of_state_.end()) {
    std::erase(of->second, ino);
    if (of->second.empty()) of_state_.erase(of);
  }
}

NodePtr NodeTable::find(Ino ino) const {
  const std::lock_guard lock(mutex_);
  const auto it = known_.find(ino);
  return it == known_.end() ? nullptr : it->second.node;
}

std::vector<NodePtr> NodeTable::of(StateId state) const {
  std::vector<NodePtr> nodes;
  const std::lock_guard lock(mutex_);
  if (const auto of = of_state_.find(state); of != of_state_.end()) {
    for (const Ino ino : of->second) nodes.push_back(known_.at(ino).node);
  }
  return nodes;
}

std::size_t NodeTable::size() const {
  const std::lock_guard lock(mutex_);
  return known_.size();
}

}  // namespace kvfs::fs
