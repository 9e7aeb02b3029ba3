// A history: pages of the absolute grid, shared with forks and copied on write. After pruning some
// of them are sparse; positions stay the original ones, and everything goes by them.
//
// Owned by the engine thread; put_in where open_room says so.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "codec/base/kv.h"
#include "codec/base/result.h"
#include "engine/model/cpu/fork_join.h"
#include "engine/model/cpu/kv_pages.h"
#include "engine/model/cpu/packing.h"
#include "engine/model/model.h"
#include "engine/prune/observation.h"

namespace kvfs::model::cpu {

// Owners of a page: the sequences (forks) whose histories share it.
class PagedSequence final : public Sequence {
 public:
  Position next_pos() const override { return next_pos_; }
  const Page& page(int index) const { return *pages_[static_cast<std::size_t>(index)]; }
  Page& page(int index) { return *pages_[static_cast<std::size_t>(index)]; }
  int pages() const { return static_cast<int>(pages_.size()); }

  // Makes positions next_pos … next_pos + count − 1 writable: new pages, and a copy of a shared
  // partial one. kTooLarge leaves everything as it was.
  Status reserve(PagePool& pool, int count);
  void advance(int count) { next_pos_ += count; }
  void truncate(Position end);
  // Whether truncate(end) leaves what the next token needs: a convolution has forgotten inputs that
  // lie further back than it keeps.
  bool can_go_back(const PageShape& shape, Position end) const;
  std::unique_ptr<PagedSequence> fork() const;

  // Pages of its own up to position end, sparse where pieces with gaps will come. Pieces before it
  // may then be put in by several threads at once, until set_next_pos.
  Status open_room(PagePool& pool, Position end, bool sparse);
  Status put_in(PagePool& pool, const KvPiece& piece);
  Status set_next_pos(PagePool& pool, ForkJoin& threads, Position next_pos);

  // A layer's entries, by KV head.
  std::vector<std::vector<Position>> positions(const PageShape& shape, int layer) const;
  // Only these entries stay. Pages that lose none stay shared. kInvalid, kTooLarge leave everything
  // as it was.
  Status prune(PagePool& pool, ForkJoin& threads, const prune::Kept& kept);

 private:
  // Slots of the page at this index that hold positions before next_pos.
  int end_in(std::size_t index) const;
  Status make_own(PagePool& pool, std::size_t index);  // a page nobody else sees
  Status make_room(PagePool& pool, Position end, bool sparse);
  Status make_sparse(PagePool& pool, std::size_t index);
  // By page: slots of the entries at positions before next_pos.
  std::vector<SideSlots> all_slots(const PageShape& shape) const;
  // Puts pages with just these slots in the place of some.
  Status rewrite(PagePool& pool, ForkJoin& threads, const std::vector<SideSlots>& staying,
                 const std::vector<bool>& which);
  Status check_filled(const PageShape& shape, Position next_pos, const std::string& what) const;

  std::vector<std::shared_ptr<Page>> pages_;
  Position next_pos_ = 0;
  // Positions that put_in has filled since the last set_next_pos, or that the last of a
  // convolution's lies below: [page][PageShape::side].
  std::vector<std::vector<std::int16_t>> filled_;
  bool open_ = false;  // other threads may be in put_in
};

}  // namespace kvfs::model::cpu
