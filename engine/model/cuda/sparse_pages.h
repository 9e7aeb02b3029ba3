// Pages of which pruning left some entries, on the host's side: which slots each side (layer ·
// kv_heads
// + head) has, and making one of another page or of what the store kept. Engine thread only.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "codec/base/kv.h"
#include "engine/model/cuda/pages.h"
#include "engine/model/side_slots.h"

namespace kvfs::model::cuda {

// Slots below `end` that each side of a page has.
SideSlots slots_below(const PageShape& shape, const PagePool::Page& page, int end);
// Whether a side lacks a slot below `end`.
bool lacks(const SideSlots& slots, int end);

// A page that is to have these slots, all below `end`, written by nobody yet: whole where no side
// lacks one, else with an entry in each side for every slot from `end` on. kTooLarge.
Result<std::shared_ptr<PagePool::Page>> empty_page(PagePool& pool, const SideSlots& slots, int end);
// Where a side's entries lie on the device, the first of them.
struct EntriesAt {
  std::byte* keys;
  std::byte* values;
  const std::uint8_t* slots;  // null: the page is whole
};
EntriesAt entries_at(const PageShape& shape, const PagePool::Page& page, std::size_t side);

// Such a page with these slots of another one. kTooLarge.
Result<std::shared_ptr<PagePool::Page>> page_of(PagePool& pool, const PagePool::Page& source,
                                                const SideSlots& slots, int end);
// A page of what kv_out gave of a block's first `end` positions: pieces of all its layers and
// heads, which may have gaps. kTooLarge.
Result<std::shared_ptr<PagePool::Page>> page_of(PagePool& pool, const std::vector<KvPiece>& pieces,
                                                int end);
// One layer's entries below `end`, as kv_out gives them. first: the position of slot 0.
Result<std::vector<KvPiece>> pieces_of(PagePool& pool, const PagePool::Page& page,
                                       std::uint16_t layer, Position first, int end);

}  // namespace kvfs::model::cuda
