#include "engine/sched/residency.h"

#include <algorithm>
#include <utility>

namespace kvfs::sched {

bool Residency::holds(VersionId id) const {
  return !id || std::ranges::find(residents_, id, &Resident::id) != residents_.end();
}

void Residency::want(const History& history) {
  failures_.erase(history.id);
  if (holds(history.id) || restores_.contains(history.id)) return;
  auto restore = begin(history);
  if (!restore) {
    failures_.emplace(history.id, restore.error());
  } else {
    restores_.emplace(history.id, *std::move(restore));
  }
}

Result<Residency::Restore> Residency::begin(const History& history) {
  std::vector<store::BlockRecord> blocks;
  for (const BlockId id : history.version.blocks) {
    KVFS_ASSIGN(auto block, store_.block(id));
    blocks.push_back(std::move(block));
  }
  Restore restore;
  restore.sequence = model_.new_sequence();
  model::Sequence& sequence = *restore.sequence;
  KVFS_ASSIGN(const bool from_any_thread,
              with_room([&] { return model_.kv_room(sequence, history.version.next_pos); }));
  KvReader::Put put;
  if (from_any_thread) {
    put = [this, &sequence](const KvPiece& piece) { return model_.kv_in(sequence, piece); };
  }
  restore.reader = std::make_unique<KvReader>(store_, blocks, wake_, std::move(put));
  restore.next_pos = history.version.next_pos;
  restore.tokens = history.version.n_tokens;
  return restore;
}

Result<std::unique_ptr<model::Sequence>> Residency::fork(const History& history) {
  if (!history.id) return model_.new_sequence();
  if (const auto it = failures_.find(history.id); it != failures_.end()) return fail(it->second);
  const auto it = std::ranges::find(residents_, history.id, &Resident::id);
  if (it == residents_.end()) {
    if (!restores_.contains(history.id)) want(history);  // dropped again before it was taken
    return nullptr;
  }
  residents_.splice(residents_.begin(), residents_, it);
  return model_.fork(*it->sequence);
}

void Residency::keep(VersionId id, std::unique_ptr<model::Sequence> sequence) {
  if (!holds(id)) residents_.push_front({id, std::move(sequence)});
}

bool Residency::evict_one() {
  if (residents_.empty()) return false;
  residents_.pop_back();
  return true;
}

Result<bool> Residency::put_in(KvReader& reader, model::Sequence& sequence, Deadline deadline) {
  bool moved = false;
  while (auto piece = reader.poll()) {
    if (!*piece) return fail(piece->error());
    KVFS_TRY(with_room([&] { return model_.kv_in(sequence, **piece); }));
    reader.take_back(std::move(**piece));
    moved = true;
    if (std::chrono::steady_clock::now() >= deadline) break;
  }
  return moved;
}

Result<bool> Residency::advance(Restore& restore, Deadline deadline) {
  KVFS_ASSIGN(const bool moved, put_in(*restore.reader, *restore.sequence, deadline));
  if (restore.reader->done()) {
    KVFS_TRY(model_.set_next_pos(*restore.sequence, restore.next_pos));
  }
  return moved;
}

bool Residency::work(Deadline deadline) {
  bool moved = false;
  for (auto it = restores_.begin(); it != restores_.end();) {
    const auto advanced = advance(it->second, deadline);
    moved = moved || !advanced || *advanced;
    if (!advanced) {
      failures_.emplace(it->first, advanced.error());
      it = restores_.erase(it);
    } else if (it->second.reader->done()) {
      restored_tokens_ += it->second.tokens;
      keep(it->first, std::move(it->second.sequence));
      it = restores_.erase(it);
      moved = true;
    } else {
      ++it;
    }
  }
  return moved;
}

std::uint64_t Residency::take_restored_tokens() { return std::exchange(restored_tokens_, 0); }

}  // namespace kvfs::sched
