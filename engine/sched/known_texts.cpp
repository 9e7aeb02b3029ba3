#include "engine/sched/known_texts.h"

#include <algorithm>
#include <utility>

namespace kvfs::sched {
namespace {

constexpr std::size_t kListPage = 1000;

// Only a key that can be worked out again proves for whom and how its block was computed. Whether
// paths count is the kernel class's to know: one of the two it must be.
bool proves(const BlockKey& key, const BlockKey& above,
            const std::vector<store::BlockToken>& tokens) {
  return key && (key == store::next_key(above, tokens, true) ||
                 key == store::next_key(above, tokens, false));
}

bool is_full(std::size_t tokens) { return tokens == static_cast<std::size_t>(kBlockTokens); }

}  // namespace

store::PrefixScope KnownTexts::scope(const model::ModelInfo& info, std::uint32_t uid) const {
  store::PrefixScope out{.fingerprint = info.fingerprint,
                         .kernel_class = info.kernel_class,
                         .kv_dtype = info.kv_dtype};
  if (!share_prefixes_) out.owner = uid;
  return out;
}

void KnownTexts::changed(StateId state) {
  const std::lock_guard lock(news_mutex_);
  if (began_) changed_.insert(state);
}

void KnownTexts::learn_all(StateId parent) {
  std::string after;
  while (true) {
    const auto page = store_.list(parent, after, kListPage);
    if (!page) return;  // removed meanwhile
    for (const auto& entry : *page) {
      if (entry.kind != store::NameEntry::Kind::kState) continue;
      if (learned_.size() >= kMostBlocks) return;
      learn(entry.state);
      learn_all(entry.state);
    }
    if (page->size() < kListPage) return;
    after = page->back().name;
  }
}

// What cannot be read has gone meanwhile, or is damaged: then it is merely not found again.
void KnownTexts::learn(StateId id) {
  const auto state = store_.state(id);
  if (!state || !state->version) return;
  const auto version = store_.version(state->version);
  if (!version) return;
  store::PrefixScope scope{.fingerprint = version->fingerprint,
                           .kernel_class = version->kernel_class,
                           .kv_dtype = version->kv_dtype};
  if (!share_prefixes_) scope.owner = state->uid;
  BlockKey above = store::first_key(scope);
  for (const BlockId block_id : version->blocks) {
    if (const auto it = learned_.find(block_id); it != learned_.end()) {
      above = it->second;
      continue;
    }
    const auto block = store_.block(block_id);
    if (!block || !proves(block->key, above, block->tokens)) return;
    if (learned_.size() >= kMostBlocks) {
      learned_.clear();
      below_.clear();
      return;
    }
    Block kept{.index = block->index, .key = block->key, .ids = {}};
    for (const auto& token : block->tokens) kept.ids.push_back(token.token);
    below_[above].push_back(std::move(kept));
    learned_.emplace(block_id, block->key);
    above = block->key;
  }
}

void KnownTexts::follow(const BlockKey& above, const Follower& from, std::vector<TokenId>& ids,
                        Match& best) const {
  const auto blocks = below_.find(above);
  if (blocks == below_.end()) return;
  const std::size_t before = ids.size();
  for (const Block& block : blocks->second) {
    Follower follower = from;
    std::size_t taken = 0, border = 0, offset = 0;
    while (taken < block.ids.size() && follower.take(block.ids[taken])) {
      ids.push_back(block.ids[taken++]);
      if (!follower.at_border()) continue;
      border = taken;
      offset = follower.offset();
    }
    if (border > 0 && before + border > best.ids.size()) {
      best.ids.assign(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(before + border));
      best.offset = offset;
      best.last = Part{.index = block.index, .key = block.key, .tokens = {}, .end = 0};
      Position position = block.index * kBlockTokens;
      for (const TokenId id : block.ids) {
        best.last->tokens.push_back({id, position++, TokenPath::kRead});
      }
      best.last->end = static_cast<Position>(before + border);
    }
    if (taken == block.ids.size() && is_full(taken)) follow(block.key, follower, ids, best);
    ids.resize(before);
  }
}

KnownTexts::Match KnownTexts::find(const Conversation& conversation, const model::ModelInfo& info,
                                   std::uint32_t uid) {
  const std::lock_guard lock(mutex_);
  std::unordered_set<StateId> changed;
  bool first = false;
  {
    const std::lock_guard news(news_mutex_);
    first = !std::exchange(began_, true);
    changed.swap(changed_);
  }
  if (first) learn_all({});
  for (const StateId state : changed) learn(state);
  Match best;
  std::vector<TokenId> ids;
  follow(store::first_key(scope(info, uid)), Follower(conversation), ids, best);
  return best;
}

}  // namespace kvfs::sched
