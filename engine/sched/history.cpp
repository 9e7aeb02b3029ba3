#include "engine/sched/history.h"

#include <algorithm>

namespace kvfs::sched {
namespace {

constexpr std::size_t kRemembered = 64;

Result<std::shared_ptr<const History>> read(store::Store& store, VersionId id) {
  auto history = std::make_shared<History>();
  history->id = id;
  if (!id) return history;
  KVFS_ASSIGN(history->version, store.version(id));
  for (const BlockId block_id : history->version.blocks) {
    KVFS_ASSIGN(const auto block, store.block(block_id));
    for (const auto& token : block.tokens) {
      history->tokens.push_back(token);
      history->ids.push_back(token.token);
    }
    history->indices.push_back(block.index);
    history->keys.push_back(block.key);
  }
  return history;
}

bool without_gaps(const std::vector<store::BlockToken>& tokens) {
  Position next = 0;
  return std::ranges::all_of(
      tokens, [&](const store::BlockToken& token) { return token.position == next++; });
}

}  // namespace

Result<std::shared_ptr<const History>> HistoryCache::get(VersionId id) {
  {
    const std::lock_guard lock(mutex_);
    const auto it = std::ranges::find(recent_, id, [](const auto& entry) { return entry->id; });
    if (it != recent_.end()) {
      recent_.splice(recent_.begin(), recent_, it);
      return *it;
    }
  }
  KVFS_ASSIGN(auto history, read(store_, id));
  const std::lock_guard lock(mutex_);
  recent_.push_front(history);
  if (recent_.size() > kRemembered) recent_.pop_back();
  return history;
}

KeyChain::KeyChain(const History& history, const store::PrefixScope& scope, bool one_path)
    : first_(store::first_key(scope)), one_path_(one_path) {
  if (!history.id) return;
  intact_ = history.version.origin == store::Origin::kComputed &&
            history.version.fingerprint == scope.fingerprint && without_gaps(history.tokens) &&
            static_cast<std::size_t>(history.version.next_pos) == history.tokens.size();
  // Only a key that can be worked out again from the tokens proves how its block was computed.
  for (std::size_t i = 0; intact_ && i < history.keys.size(); ++i) {
    const auto index = static_cast<std::int32_t>(i);
    const auto tokens = block_tokens(history.tokens, index, history.version.next_pos);
    close_before(index, history.tokens);
    intact_ = history.keys[i] && key(index, tokens) == history.keys[i];
  }
}

BlockKey KeyChain::previous(std::int32_t index) const {
  if (!intact_ || index == 0) return {};
  return closed_[static_cast<std::size_t>(index) - 1];
}

BlockKey KeyChain::key(std::int32_t index, const std::vector<store::BlockToken>& tokens) const {
  if (!intact_) return {};
  return store::next_key(index == 0 ? first_ : previous(index), tokens, one_path_);
}

void KeyChain::close_before(std::int32_t index, const std::vector<store::BlockToken>& tokens) {
  if (!intact_) return;
  while (closed_.size() < static_cast<std::size_t>(index)) {
    const auto next = static_cast<std::int32_t>(closed_.size());
    closed_.push_back(key(next, block_tokens(tokens, next, (next + 1) * kBlockTokens)));
  }
}

std::vector<store::BlockToken> block_tokens(const std::vector<store::BlockToken>& tokens,
                                            std::int32_t index, Position end) {
  const Position first = index * kBlockTokens;
  const Position last = std::min(first + kBlockTokens, end);
  const auto begin = std::ranges::lower_bound(tokens, first, {}, &store::BlockToken::position);
  const auto stop = std::ranges::lower_bound(begin, tokens.end(), std::max(first, last), {},
                                             &store::BlockToken::position);
  return {begin, stop};
}

}  // namespace kvfs::sched
