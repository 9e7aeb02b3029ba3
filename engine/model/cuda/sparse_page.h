// A page of which pruning left some entries, as it lies on the device: for each side (layer ·
// kv_heads
// + head) the entries at some of its 256 slots, ascending, one side behind the other.
//
//   SparseHeader │ begins int32 [sides + 1] │ slots uint8 [entries] │ keys │ values
//   [entries][width]
//
// The slots from `tail` on, where the history may go on, have an entry in each side; so the entry
// of such a slot is counted from the side's end. Parts begin at multiples of 16 bytes; a table of
// pages holds a sparse one's address plus 1.
#pragma once

#include <cstdint>

namespace kvfs::model::cuda {

struct SparseHeader {
  std::int64_t slots;  // bytes from the page's beginning
  std::int64_t keys;
  std::int64_t values;
  std::int64_t entries;  // of all sides
};

constexpr std::uintptr_t kSparse = 1;

}  // namespace kvfs::model::cuda
