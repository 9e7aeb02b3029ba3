// While it lives its block is not collected: for blocks that were just added, or found by their
// prefix, until a version lists them, and for those that are being read.
//
// Movable; from any thread. The store outlives it.
#pragma once

#include <utility>

#include "codec/base/ids.h"

namespace kvfs::store {

class Store;

class BlockPin {
 public:
  BlockPin() = default;
  BlockPin(BlockPin&& other) noexcept
      : store_(std::exchange(other.store_, nullptr)), id_(other.id_) {}
  BlockPin& operator=(BlockPin&& other) noexcept {
    std::swap(store_, other.store_);
    std::swap(id_, other.id_);
    return *this;
  }
  ~BlockPin();

  BlockId id() const { return id_; }

 private:
  friend class Store;
  BlockPin(Store& store, BlockId id) : store_(&store), id_(id) {}

  Store* store_ = nullptr;  // null: it holds nothing
  BlockId id_;
};

}  // namespace kvfs::store
