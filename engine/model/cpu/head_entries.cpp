#include "engine/model/cpu/head_entries.h"

#include <algorithm>

#include "engine/model/cpu/kernels.h"
#include "engine/model/cpu/kv_pages.h"

namespace kvfs::model::cpu {
namespace {

std::size_t key_bytes(const PageShape& shape, int slots) {
  const auto tiles = static_cast<std::size_t>((slots + kPanel - 1) / kPanel);
  return tiles * kPanel * static_cast<std::size_t>(shape.width) * size_of(shape.dtype);
}

}  // namespace

std::size_t HeadStore::bytes_for(const PagePool& pool, int slots) {
  const PageShape& shape = pool.shape();
  return key_bytes(shape, slots) + static_cast<std::size_t>(slots) *
                                       static_cast<std::size_t>(shape.width) * size_of(shape.dtype);
}

HeadStore::HeadStore(PagePool& pool, int slots)
    : pool_(pool),
      slots_(slots),
      data_(allocate_huge(bytes_for(pool, slots))),
      memory_{data_.get(), data_.get() + key_bytes(pool.shape(), slots), slots} {
  pool_.used_ += bytes_for(pool_, slots_);
}

HeadStore::~HeadStore() { pool_.used_ -= bytes_for(pool_, slots_); }

int HeadEntries::before(int slot) const {
  const auto at = std::lower_bound(slots.begin(), slots.end(), slot);
  return static_cast<int>(at - slots.begin());
}

}  // namespace kvfs::model::cpu
