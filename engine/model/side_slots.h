// Which slots of a page's 256 each of its sides (layer · kv_heads + head) has an entry at. Plain
// values, any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "codec/base/result.h"
#include "engine/prune/observation.h"

namespace kvfs::model {

using SideSlots = std::vector<std::vector<std::uint8_t>>;  // by side, ascending

// Takes what a choice drops out of a sequence's pages, whose slots these are, and says which pages
// lose some. kInvalid: a choice for another model or sequence, out of order, or one that leaves
// nothing of a head; the slots may then be any.
Result<std::vector<bool>> keep_only(const prune::Kept& kept, std::size_t layers,
                                    std::size_t kv_heads, std::span<SideSlots> pages);

}  // namespace kvfs::model
