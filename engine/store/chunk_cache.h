// Decoded chunks, the least recently used going first. Any thread.
#pragma once

#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "codec/base/bytes.h"

namespace kvfs::store {

class ChunkCache {
 public:
  // Owned by the cache and by the reads that are copying from it.
  using Chunk = std::shared_ptr<const Bytes>;

  explicit ChunkCache(std::size_t capacity) : capacity_(capacity) {}

  Chunk find(const ChunkId& id) {
    std::lock_guard lock(mutex_);
    const auto it = places_.find(id);
    if (it == places_.end()) return nullptr;
    order_.splice(order_.begin(), order_, it->second);
    return it->second->second;
  }

  void insert(const ChunkId& id, Chunk chunk) {
    std::lock_guard lock(mutex_);
    if (places_.contains(id)) return;
    bytes_ += chunk->size();
    order_.emplace_front(id, std::move(chunk));
    places_[id] = order_.begin();
    while (bytes_ > capacity_ && order_.size() > 1) {
      bytes_ -= order_.back().second->size();
      places_.erase(order_.back().first);
      order_.pop_back();
    }
  }

 private:
  using Order = std::list<std::pair<ChunkId, Chunk>>;
  const std::size_t capacity_;
  std::mutex mutex_;
  Order order_;                                          // guarded by mutex_
  std::unordered_map<ChunkId, Order::iterator> places_;  // guarded by mutex_
  std::size_t bytes_ = 0;                                // guarded by mutex_
};

}  // namespace kvfs::store
