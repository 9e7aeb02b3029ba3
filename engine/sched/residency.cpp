#include "engine/sched/residency.h"

#include <algorithm>
#include <utility>

namespace kvfs::sched {
namespace {

// Full blocks that both begin with. Equal ids are equal bits.
std::size_t common_blocks(const History& history, const std::vector<BlockId>& others) {
  const auto& mine = history.version.blocks;
  const auto full = std::min<std::size_t>(
      mine.size(), static_cast<std::size_t>(history.version.next_pos / kBlockTokens));
  std::size_t count = 0;
  while (count < full && count < others.size() && mine[count] == others[count]) ++count;
  return count;
}

// There is a block for all positions up to the last, so its place in the list is its index.
bool dense(const History& history) {
  return std::cmp_equal(history.tokens.size(), history.version.next_pos);
}

}  // namespace

bool Residency::holds(VersionId id) const {
  return !id || std::ranges::find(residents_, id, &Resident::id) != residents_.end();
}

Residency::Restores::const_iterator Residency::coming(VersionId id) const {
  return std::ranges::find(restores_, id, &Restore::id);
}

bool Residency::reads(VersionId id) const {
  const auto it = coming(id);
  return it != restores_.end() && it->reads();
}

Residency::Arrival Residency::arrival(VersionId id) const {
  const auto it = std::ranges::find(residents_, id, &Resident::id);
  return it == residents_.end() ? Arrival{} : it->arrival;
}

void Residency::want(const Base& base) {
  const VersionId id = base.history->id;
  failures_.erase(id);
  if (holds(id) || coming(id) != restores_.end()) return;
  Restore restore{.base = base};
  if (!waits(restore)) {
    if (const auto begun = begin(restore); !begun) {
      failures_.emplace(id, begun.error());
      return;
    }
  }
  restores_.push_back(std::move(restore));
}

// --- beginning
// ----------------------------------------------------------------------------------------

std::pair<std::size_t, const Residency::Resident*> Residency::most_shared(
    const History& history) const {
  std::pair<std::size_t, const Resident*> best{0, nullptr};
  if (!dense(history)) return best;
  for (const Resident& resident : residents_) {
    const std::size_t shared = common_blocks(history, resident.blocks);
    if (shared > best.first) best = {shared, &resident};
  }
  return best;
}

// Whether another one on its way brings blocks that this one needs too, so that they come once: as
// far as it then comes no later than if the two went on side by side.
bool Residency::waits(const Restore& restore) const {
  const History& history = *restore.base.history;
  const std::size_t there = most_shared(history).first;
  return dense(history) && std::ranges::any_of(restores_, [&](const Restore& other) {
           if (!other.sequence || !dense(*other.base.history)) return false;
           const auto& blocks = other.base.history->version.blocks;
           const std::size_t shared = common_blocks(history, blocks);
           return shared > there && blocks.size() - shared <= history.version.blocks.size();
         });
}

Status Residency::begin(Restore& restore) {
  share(restore);
  KVFS_TRY(plan(restore));
  return restore.sequence->next_pos() < restore.read_to ? Status{} : restore_rest(restore);
}

// Takes the blocks that a version on the device holds too.
void Residency::share(Restore& restore) {
  const auto [shared, resident] = most_shared(*restore.base.history);
  if (resident != nullptr) {
    restore.sequence = model_.fork(*resident->sequence);
    const auto end = static_cast<Position>(shared) * kBlockTokens;
    if (model_.truncate(*restore.sequence, end)) return;
  }
  restore.sequence = model_.new_sequence();
}

// What is not there yet: to be read, or to be restored.
Status Residency::plan(Restore& restore) {
  const History& history = *restore.base.history;
  const Position here = restore.sequence->next_pos();
  std::vector<Planner::Block> missing;
  for (std::size_t i = 0; i < history.version.blocks.size(); ++i) {
    const Position first = history.indices[i] * kBlockTokens;
    if (first < here) continue;
    KVFS_ASSIGN(auto block, store_.block(history.version.blocks[i]));
    missing.push_back({first, std::min(first + kBlockTokens, history.version.next_pos),
                       store::decoded_bytes(block)});
    restore.blocks.push_back(std::move(block));
  }
  const std::size_t read = restore.base.recomputable ? planner_.blocks_to_read(missing) : 0;
  restore.read_to = read == 0 ? here : missing[read - 1].end;
  restore.blocks.erase(restore.blocks.begin(),
                       restore.blocks.begin() + static_cast<std::ptrdiff_t>(read));
  for (std::size_t i = read; i < missing.size(); ++i) restore.bytes += missing[i].bytes;
  restore.arrival.recomputed_tokens = static_cast<std::uint32_t>(restore.read_to - here);
  for (const auto& block : restore.blocks) {
    restore.arrival.restored_tokens += static_cast<std::uint32_t>(block.tokens.size());
  }
  return {};
}

Status Residency::restore_rest(Restore& restore) {
  model::Sequence& sequence = *restore.sequence;
  const store::VersionRecord& version = restore.base.history->version;
  const bool gaps = store::has_gaps(version);
  KVFS_ASSIGN(restore.goes_alone,
              with_room([&] { return model_.kv_room(sequence, version.next_pos, gaps); }));
  KvReader::Put put;
  if (restore.goes_alone && model_.takes_stored()) {
    put.stored = [this, &sequence](const auto& piece) { return model_.stored_in(sequence, piece); };
  } else if (restore.goes_alone) {
    put.decoded = [this, &sequence](const auto& piece) { return model_.kv_in(sequence, piece); };
  }
  charge_time();
  restore.reader = std::make_unique<KvReader>(store_, restore.blocks, wake_, std::move(put));
  restore.blocks.clear();
  return {};
}

// --- on the way
// ---------------------------------------------------------------------------------------

Result<std::unique_ptr<model::Sequence>> Residency::fork(const Base& base) {
  const VersionId id = base.history->id;
  if (!id) return model_.new_sequence();
  if (const auto it = failures_.find(id); it != failures_.end()) return fail(it->second);
  const auto it = std::ranges::find(residents_, id, &Resident::id);
  if (it == residents_.end()) {
    if (coming(id) == restores_.end()) want(base);  // dropped again before it was taken
    return nullptr;
  }
  residents_.splice(residents_.begin(), residents_, it);
  return model_.fork(*it->sequence);
}

void Residency::keep(VersionId id, std::unique_ptr<model::Sequence> sequence) {
  if (holds(id)) return;
  Resident resident{.id = id, .sequence = std::move(sequence), .blocks = {}, .arrival = {}};
  if (auto version = store_.version(id)) resident.blocks = std::move(version->blocks);
  residents_.push_front(std::move(resident));
}

bool Residency::evict_one() {
  if (residents_.empty()) return false;
  residents_.pop_back();
  return true;
}

void Residency::drop(VersionId id) {
  std::erase_if(residents_, [&](const Resident& resident) { return resident.id == id; });
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
  if (!restore.sequence) {
    if (waits(restore)) return false;
    KVFS_TRY(begin(restore));
  }
  if (restore.reads()) return false;
  KVFS_ASSIGN(const bool moved, put_in(*restore.reader, *restore.sequence, deadline));
  if (restore.reader->done()) {
    KVFS_TRY(model_.set_next_pos(*restore.sequence, restore.base.history->version.next_pos));
  }
  return moved;
}

bool Residency::work(Deadline deadline) {
  if (restores_.empty()) return false;
  charge_time();
  bool moved = false;
  for (auto it = restores_.begin(); it != restores_.end();) {
    const auto advanced = advance(*it, deadline);
    moved = moved || !advanced || *advanced;
    if (!advanced) {
      failures_.emplace(it->id(), advanced.error());
      it = restores_.erase(it);
    } else if (it->reader && it->reader->done()) {
      charge_time();
      arrive(*it);
      it = restores_.erase(it);
      moved = true;
    } else {
      ++it;
    }
  }
  charge_time();
  return moved;
}

void Residency::arrive(Restore& restore) {
  planner_.restored(restore.bytes, restore.took);
  restored_tokens_ += restore.arrival.restored_tokens;
  restore.arrival.number = ++arrivals_;
  residents_.push_front({.id = restore.id(),
                         .sequence = std::move(restore.sequence),
                         .blocks = restore.base.history->version.blocks,
                         .arrival = restore.arrival});
}

bool Residency::read_slice() {
  const auto it = std::ranges::find_if(restores_, &Restore::reads);
  if (it == restores_.end()) return false;
  restores_.splice(restores_.end(), restores_, it);
  const Position first = it->sequence->next_pos();
  const Position count = std::min(it->read_to - first, model_.prefill_slice());
  const std::span<const TokenId> ids = it->base.history->ids;  // positions are indices: no gaps
  const auto tokens = ids.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count));
  const auto begin = Clock::now();
  auto done = with_room([&] { return model_.prefill(*it->sequence, tokens, {}); });
  if (done) {
    planner_.read(first, tokens.size(), Clock::now() - begin);
    recomputed_tokens_ += tokens.size();
    if (it->sequence->next_pos() >= it->read_to) done = restore_rest(*it);
  }
  if (!done) {
    failures_.emplace(it->id(), done.error());
    restores_.erase(it);
  }
  return true;
}

// Restores that go on together share the time.
void Residency::charge_time(bool computing) {
  const auto now = Clock::now();
  const auto restoring = [](const Restore& restore) { return restore.reader != nullptr; };
  const auto together = std::ranges::count_if(restores_, restoring);
  for (Restore& restore : restores_) {
    if (restoring(restore) && (restore.goes_alone || !computing)) {
      restore.took += (now - charged_until_) / together;
    }
  }
  charged_until_ = now;
}

}  // namespace kvfs::sched
