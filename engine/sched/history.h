// What a version has read and generated, as tokens, and the prefix keys of its blocks.
//
// A History is immutable and may be shared by any threads. HistoryCache may be called from any
// thread; it keeps the last few, since a prompt is checked against one, often twice, before it runs
// on it. shared_ptr: owned by the cache, by the jobs that run on it and by what brings it to the
// device.
#pragma once

#include <list>
#include <memory>
#include <mutex>
#include <vector>

#include "engine/store/store.h"

namespace kvfs::sched {

struct History {
  VersionId id;  // none: an empty state
  store::VersionRecord version;
  std::vector<store::BlockToken> tokens;  // in order
  std::vector<TokenId> ids;               // the same tokens' ids
  std::vector<std::int32_t> indices;      // of the blocks, on the absolute grid
  std::vector<BlockKey> keys;             // of the blocks, zero where one has none
};

class HistoryCache {
 public:
  explicit HistoryCache(store::Store& store) : store_(store) {}
  // none gives the empty history.
  Result<std::shared_ptr<const History>> get(VersionId id);

 private:
  store::Store& store_;
  std::mutex mutex_;
  std::list<std::shared_ptr<const History>> recent_;  // newest first
};

// The chained keys of the blocks of one growing history. A key is given only while everything
// before it was computed by this model, in this kernel class, for this owner: imported, edited,
// pruned or lossy KV, and KV of another class, breaks the chain for good.
class KeyChain {
 public:
  KeyChain(const History& history, const store::PrefixScope& scope, bool one_path);

  bool intact() const { return intact_; }
  void break_off() { intact_ = false; }
  // Of block `index` when it holds these tokens; zero when the chain is broken. Blocks before it
  // must have been closed.
  BlockKey key(std::int32_t index, const std::vector<store::BlockToken>& tokens) const;
  BlockKey previous(std::int32_t index) const;
  // Blocks up to (without) index are full and hold these tokens.
  void close_before(std::int32_t index, const std::vector<store::BlockToken>& tokens);

 private:
  BlockKey first_;
  bool one_path_;
  bool intact_ = true;
  std::vector<BlockKey> closed_;  // of full blocks
};

// The tokens of one block, as far as they stand before position end.
std::vector<store::BlockToken> block_tokens(const std::vector<store::BlockToken>& tokens,
                                            std::int32_t index, Position end);

}  // namespace kvfs::sched
