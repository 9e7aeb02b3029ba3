// The texts of stored histories, to find again the conversation that a client sends as text. A tree
// of the prefix index's blocks: below a block are those that go on from it, at the root those that
// a model read first for one owner. So what one owner's states hold is never found for another,
// unless prefixes are shared.
//
// Any thread. Blocks are learned when first asked for, from the store: a state's when it
// has changed. What it remembers is a guess about ids; that KV is there is for the prefix index to
// say. At most kMostBlocks are kept (some 30 MB), then it begins anew.
#pragma once

#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "engine/sched/conversation.h"
#include "engine/store/store.h"

namespace kvfs::sched {

class KnownTexts {
 public:
  static constexpr std::size_t kMostBlocks = 16384;

  // A stored block, up to the position `end`, which may lie within it.
  struct Part {
    std::int32_t index = 0;
    BlockKey key;
    std::vector<store::BlockToken> tokens;
    Position end = 0;
  };
  struct Match {
    std::vector<TokenId> ids;  // of a stored history's beginning
    std::size_t offset = 0;    // bytes of the conversation that they spell; a border
    std::optional<Part> last;  // the block they end in
  };

  KnownTexts(store::Store& store, bool share_prefixes)
      : store_(store), share_prefixes_(share_prefixes) {}

  void changed(StateId state);  // it has a new version
  // The longest beginning of the conversation that is known to this model and owner.
  Match find(const Conversation& conversation, const model::ModelInfo& info, std::uint32_t uid);
  // What decides which blocks this model's jobs of this owner share.
  store::PrefixScope scope(const model::ModelInfo& info, std::uint32_t uid) const;

 private:
  struct Block {
    std::int32_t index;
    BlockKey key;
    std::vector<TokenId> ids;
  };
  void learn_all(StateId parent);
  void learn(StateId state);
  void follow(const BlockKey& above, const Follower& from, std::vector<TokenId>& ids,
              Match& best) const;

  store::Store& store_;
  const bool share_prefixes_;
  std::mutex news_mutex_;  // guards began_ and changed_; taken last
  bool began_ = false;
  std::unordered_set<StateId> changed_;
  std::mutex mutex_;  // guards what follows; held while blocks are read
  std::unordered_map<BlockKey, std::vector<Block>> below_;
  std::unordered_map<BlockId, BlockKey> learned_;
};

}  // namespace kvfs::sched
