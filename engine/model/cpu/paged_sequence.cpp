#include "engine/model/cpu/paged_sequence.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "engine/model/cpu/kernels.h"
#include "engine/model/cpu/packing.h"

namespace kvfs::model::cpu {
namespace {

// That the piece is of one block and the model's shapes. True: it is all that the layer keeps of
// the first positions of the block; false: there are gaps, and the layer attends.
Result<bool> check_piece(const PageShape& s, const KvPiece& piece, const std::string& what) {
  const std::size_t count = piece.positions.size();
  const bool known = piece.layer < s.layers.size();
  const LayerShape shape = known ? s.layer(piece.layer) : LayerShape{};
  if (!known || piece.head_count == 0 || piece.head_begin + piece.head_count > shape.kv_heads ||
      count == 0 || count > shape.kept || piece.positions[0] < 0) {
    return fail(ErrorCode::kInvalid, what, "layer, heads or positions outside of the model's");
  }
  if (piece.kind != shape.kind) {
    return fail(ErrorCode::kUnsupported, what, "it is of another kind than the model's layer");
  }
  const std::size_t rows = piece.head_count * count * size_of(s.dtype);
  if (piece.key.size() != rows * shape.key_width ||
      piece.value.size() != rows * shape.value_width) {
    return fail(ErrorCode::kInvalid, what,
                "the bytes are not heads × positions × width of the model's KV type");
  }
  const auto not_rising = [](Position a, Position b) { return b <= a; };
  const auto& positions = piece.positions;
  if (std::ranges::adjacent_find(positions, not_rising) != positions.end() ||
      positions.front() / kPage != positions.back() / kPage) {
    return fail(ErrorCode::kInvalid, what, "its positions do not rise inside one block");
  }
  const int end = positions.back() % kPage + 1;
  const bool whole = positions.back() - positions.front() + 1 == std::min<int>(end, shape.kept) &&
                     positions.back() - positions.front() + 1 == static_cast<Position>(count);
  if (!whole && s.convolves(piece.layer)) {
    return fail(ErrorCode::kUnsupported, what, "positions are missing inside the block");
  }
  return whole;
}

}  // namespace

int PagedSequence::end_in(std::size_t index) const {
  return std::clamp(next_pos_ - static_cast<int>(index) * kPage, 0, kPage);
}

Status PagedSequence::make_own(PagePool& pool, std::size_t index) {
  if (index == pages_.size()) {
    KVFS_ASSIGN(pages_.emplace_back(), pool.make_page());
    return {};
  }
  if (pages_[index].use_count() == 1) return {};
  std::shared_ptr<Page> page;
  if (pages_[index]->sparse()) {
    page = pool.make_sparse_page();
  } else {
    KVFS_ASSIGN(page, pool.make_page());
  }
  page->copy_from(*pages_[index]);
  pages_[index] = std::move(page);
  return {};
}

Status PagedSequence::reserve(PagePool& pool, int count) {
  if (count <= 0) return {};
  const std::size_t before = pages_.size();
  const auto first = static_cast<std::size_t>(next_pos_ / kPage);
  const auto last = static_cast<std::size_t>((next_pos_ + count - 1) / kPage);
  const auto end = [&](std::size_t index) {
    return std::min(next_pos_ + count - static_cast<Position>(index) * kPage, kPage);
  };
  for (std::size_t index = first; index <= last; ++index) {
    Status made = make_own(pool, index);
    if (made && pages_[index]->sparse()) made = pages_[index]->extend(end_in(index), end(index));
    if (!made) {
      pages_.resize(std::min(before, pages_.size()));
      return made;
    }
  }
  for (std::size_t index = first; index <= last; ++index) pages_[index]->set_reached(end(index));
  return {};
}

bool PagedSequence::can_go_back(const PageShape& shape, Position end) const {
  // At a page's beginning the one before is whole, and so is what it keeps.
  if (end % kPage == 0) return true;
  const int reached = page(end / kPage).reached();
  return reached <= shape.kept || end % kPage > reached - 2;
}

void PagedSequence::truncate(Position end) {
  next_pos_ = end;
  pages_.resize(std::min(pages_.size(), static_cast<std::size_t>((end + kPage - 1) / kPage)));
  filled_.clear();
  open_ = false;
}

std::unique_ptr<PagedSequence> PagedSequence::fork() const {
  auto copy = std::make_unique<PagedSequence>();
  copy->pages_ = pages_;
  copy->next_pos_ = next_pos_;
  return copy;
}

Status PagedSequence::open_room(PagePool& pool, Position end, bool sparse) {
  KVFS_TRY(make_room(pool, end, sparse));
  open_ = true;
  return {};
}

Status PagedSequence::make_room(PagePool& pool, Position end, bool sparse) {
  const auto pages = static_cast<std::size_t>((end + kPage - 1) / kPage);
  if (filled_.size() < pages) filled_.resize(pages);
  for (auto index = static_cast<std::size_t>(next_pos_ / kPage); index < pages; ++index) {
    if (sparse && index == pages_.size()) pages_.push_back(pool.make_sparse_page());
    KVFS_TRY(make_own(pool, index));
    filled_[index].resize(pool.shape().sides(), 0);
    if (sparse) KVFS_TRY(make_sparse(pool, index));
    const int count = std::min(kPage, end - static_cast<Position>(index) * kPage);
    pages_[index]->set_reached(std::max(pages_[index]->reached(), count));
  }
  return {};
}

// A whole page becomes one with what is known of it.
Status PagedSequence::make_sparse(PagePool& pool, std::size_t index) {
  const PageShape& s = pool.shape();
  const Page& page = *pages_[index];
  if (page.sparse()) return {};
  SideSlots known(s.sides());
  for (std::size_t side = 0; side < s.sides(); ++side) {
    const int end = std::max<int>(end_in(index), filled_[index][side]);
    known[side] = page.slots(0, 0, end);  // a whole page: the same for all
  }
  KVFS_ASSIGN(std::vector<std::shared_ptr<Page>> made, pack(pool, {&page}, {known}, nullptr));
  made[0]->set_reached(page.reached());
  pages_[index] = std::move(made[0]);
  return {};
}

Status PagedSequence::put_in(PagePool& pool, const KvPiece& piece) {
  const PageShape& s = pool.shape();
  const std::string what = "KV of layer " + std::to_string(piece.layer);
  KVFS_ASSIGN(const bool whole, check_piece(s, piece, what));
  if (!whole && s.kept < kPage) {
    return fail(ErrorCode::kUnsupported, what, "positions are missing inside the block",
                "a model with convolutions takes whole blocks only");
  }
  const auto index = static_cast<std::size_t>(piece.positions[0] / kPage);
  if (index > pages_.size())
    return fail(ErrorCode::kInvalid, what, "blocks must come in ascending order");
  const int end = piece.positions.back() % kPage + 1;
  const bool has_room = index < pages_.size() && pages_[index].use_count() == 1 &&
                        index < filled_.size() && !filled_[index].empty();
  if (!has_room) KVFS_TRY(make_room(pool, piece.positions.back() + 1, !whole));
  if (!whole && !pages_[index]->sparse()) {
    if (open_) {
      return fail(ErrorCode::kInvalid, what, "positions are missing inside the block",
                  "make room for pieces with gaps");
    }
    KVFS_TRY(make_sparse(pool, index));
  }

  Page& page = *pages_[index];
  const auto of_layer = filled_[index].begin() + piece.layer * s.kv_heads;
  const std::size_t count = piece.positions.size();
  if (s.convolves(piece.layer)) {
    const std::size_t row = s.row_bytes(piece.layer);
    for (std::size_t i = 0; i < count; ++i) {
      std::memcpy(page.input(piece.layer, piece.positions[i] % kPage), &piece.key[i * row], row);
    }
    std::fill_n(of_layer, s.kv_heads, static_cast<std::int16_t>(end));
    return {};
  }
  std::vector<std::uint8_t> slots;
  for (const Position pos : piece.positions)
    slots.push_back(static_cast<std::uint8_t>(pos % kPage));
  const std::size_t side = piece.key.size() / piece.head_count;
  for (std::size_t h = 0; h < piece.head_count; ++h) {
    const int head = piece.head_begin + static_cast<int>(h);
    const ByteSpan key = ByteSpan(piece.key).subspan(h * side, side);
    const ByteSpan value = ByteSpan(piece.value).subspan(h * side, side);
    if (page.sparse()) {
      KVFS_TRY(page.replace(piece.layer, head, slots, key, value));
    } else {
      page.write(piece.layer, head, end, key, value);
    }
    of_layer[head] = static_cast<std::int16_t>(end);
  }
  return {};
}

// Of a sparse page it is not known what it should hold: but every head holds something somewhere.
Status PagedSequence::check_filled(const PageShape& shape, Position next_pos,
                                   const std::string& what) const {
  std::vector<bool> seen(shape.sides(), next_pos == 0);
  for (std::size_t page = 0; page * kPage < static_cast<std::size_t>(next_pos); ++page) {
    const int needed = std::min(kPage, next_pos - static_cast<int>(page) * kPage);
    if (pages_[page]->sparse()) {
      for (std::size_t side = 0; side < shape.sides(); ++side) {
        const auto layer = static_cast<int>(side) / shape.kv_heads;
        const auto head = static_cast<int>(side) % shape.kv_heads;
        if (pages_[page]->before(layer, head, needed) > 0) seen[side] = true;
      }
      continue;
    }
    const int known = end_in(page);
    const bool put = page < filled_.size() && !filled_[page].empty();
    const int least = put ? *std::min_element(filled_[page].begin(), filled_[page].end()) : known;
    if (least < needed && known < needed) {
      return fail(ErrorCode::kInvalid, what,
                  "block " + std::to_string(page) + " lacks KV of some layer or head");
    }
    seen.assign(seen.size(), true);
  }
  if (std::ranges::find(seen, false) != seen.end())
    return fail(ErrorCode::kInvalid, what, "a layer's head has no KV in any block");
  return {};
}

Status PagedSequence::set_next_pos(PagePool& pool, ForkJoin& threads, Position next_pos) {
  const std::string what = "set the next position to " + std::to_string(next_pos);
  if (next_pos < 0 || next_pos > static_cast<Position>(pages_.size()) * kPage) {
    return fail(ErrorCode::kInvalid, what,
                "there is KV for " + std::to_string(pages_.size()) + " blocks only");
  }
  KVFS_TRY(check_filled(pool.shape(), next_pos, what));
  if (!can_go_back(pool.shape(), next_pos)) {
    return fail(ErrorCode::kInvalid, what, "the convolutions' inputs before it are not there");
  }
  std::vector<bool> came_in(pages_.size());
  for (std::size_t i = 0; i < std::min(came_in.size(), filled_.size()); ++i)
    came_in[i] = !filled_[i].empty() && pages_[i]->sparse();
  truncate(next_pos);
  came_in.resize(pages_.size());
  if (std::ranges::find(came_in, true) == came_in.end()) return {};
  // Each piece has a store of its own until now. Without room for a copy they stay so.
  const Status packed = rewrite(pool, threads, all_slots(pool.shape()), came_in);
  return !packed && packed.error().code != ErrorCode::kTooLarge ? packed : Status{};
}

std::vector<SideSlots> PagedSequence::all_slots(const PageShape& shape) const {
  std::vector<SideSlots> all(pages_.size());
  for (std::size_t page = 0; page < pages_.size(); ++page) {
    for (int layer = 0; layer < static_cast<int>(shape.layers.size()); ++layer) {
      for (int head = 0; head < shape.kv_heads; ++head)
        all[page].push_back(pages_[page]->slots(layer, head, end_in(page)));
    }
  }
  return all;
}

Status PagedSequence::rewrite(PagePool& pool, ForkJoin& threads,
                              const std::vector<SideSlots>& staying,
                              const std::vector<bool>& which) {
  std::vector<const Page*> from;
  std::vector<SideSlots> slots;
  for (std::size_t i = 0; i < pages_.size(); ++i) {
    if (!which[i]) continue;
    from.push_back(pages_[i].get());
    slots.push_back(staying[i]);
  }
  if (from.empty()) return {};
  KVFS_ASSIGN(std::vector<std::shared_ptr<Page>> made, pack(pool, from, slots, &threads));
  for (std::size_t i = 0, next = 0; i < pages_.size(); ++i) {
    if (!which[i]) continue;
    made[next]->set_reached(pages_[i]->reached());
    pages_[i] = std::move(made[next++]);
  }
  return {};
}

std::vector<std::vector<Position>> PagedSequence::positions(const PageShape& shape,
                                                            int layer) const {
  std::vector<std::vector<Position>> by_head(static_cast<std::size_t>(shape.kv_heads));
  for (int head = 0; head < shape.kv_heads; ++head) {
    for (std::size_t page = 0; page < pages_.size(); ++page) {
      for (const std::uint8_t slot : pages_[page]->slots(layer, head, end_in(page)))
        by_head[static_cast<std::size_t>(head)].push_back(static_cast<Position>(page) * kPage +
                                                          slot);
    }
  }
  return by_head;
}

Status PagedSequence::prune(PagePool& pool, ForkJoin& threads, const prune::Kept& kept) {
  const PageShape& s = pool.shape();
  if (s.kept < kPage) {
    return fail(ErrorCode::kUnsupported, "prune a sequence",
                "the model has layers with convolutions, whose state has no entries to drop",
                "prune states of models with attention only");
  }
  std::vector<SideSlots> staying = all_slots(s);
  KVFS_ASSIGN(std::vector<bool> loses,
              keep_only(kept, s.layers.size(), static_cast<std::size_t>(s.kv_heads), staying));
  // Sparse pages may share their memory: it is free once all of them are written anew.
  const auto sparse = [&](std::size_t i) { return pages_[i]->sparse(); };
  bool sparse_loses = false;
  for (std::size_t i = 0; i < pages_.size(); ++i) sparse_loses |= loses[i] && sparse(i);
  for (std::size_t i = 0; sparse_loses && i < pages_.size(); ++i) loses[i] = loses[i] || sparse(i);
  return rewrite(pool, threads, staying, loses);
}

}  // namespace kvfs::model::cpu
