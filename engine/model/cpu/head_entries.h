// What one KV head of one layer has at some of a page's positions.
//
// The entries of many pages may lie in one store, one after the other, so that short ones do not
// pay for a tile each. A store that several entries share is not written to.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "engine/model/cpu/huge_memory.h"
#include "engine/model/cpu/page_order.h"

namespace kvfs::model::cpu {

class PagePool;

// Memory for a head's keys and values, in page order. Counts its bytes in the pool.
class HeadStore {
 public:
  HeadStore(PagePool& pool, int slots);  // throws std::bad_alloc
  ~HeadStore();
  HeadStore(const HeadStore&) = delete;
  HeadStore& operator=(const HeadStore&) = delete;

  int slots() const { return slots_; }
  const HeadMemory& memory() const { return memory_; }
  // Keys fill whole tiles of 32, values just their slots.
  static std::size_t bytes_for(const PagePool& pool, int slots);

 private:
  PagePool& pool_;
  int slots_;
  HugeMemory data_;
  HeadMemory memory_;
};

struct HeadEntries {
  std::vector<std::uint8_t> slots;   // of the page: position % 256, ascending
  int first = 0;                     // the first one's slot in the store
  std::shared_ptr<HeadStore> store;  // owners: entries packed together, and their forks'

  int before(int slot) const;  // how many lie below a slot of the page
};

}  // namespace kvfs::model::cpu
