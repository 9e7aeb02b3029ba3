// The nodes the kernel knows: inode number ↔ node, with the kernel's lookup counts.
//
// Any thread; one lock, held for a map operation only. A node lives here from the reply that names
// it until the kernel forgets it as often as it was named.
#pragma once

#include <cstdint>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "fs/node.h"

namespace kvfs::fs {

class NodeTable {
 public:
  // Counts a lookup. Gives the node that stands for this number from now on: the one already known,
  // or this one.
  NodePtr remember(NodePtr node);
  void forget(Ino ino, std::uint64_t count);
  NodePtr find(Ino ino) const;  // null: the kernel does not know it
  std::vector<NodePtr> of(StateId state) const;
  std::size_t size() const;

 private:
  struct Known {
    NodePtr node;
    std::uint64_t lookups = 0;
  };
  mutable std::mutex mutex_;  // guards everything below
  std::unordered_map<Ino, Known> known_;
  std::unordered_map<StateId, std::vector<Ino>> of_state_;
};

}  // namespace kvfs::fs
