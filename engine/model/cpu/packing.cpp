#include "engine/model/cpu/packing.h"

#include <utility>

#include "engine/model/cpu/page_order.h"

namespace kvfs::model::cpu {
namespace {

// An entry's way from one head's memory to another.
void copy_entry(const PageShape& shape, const HeadMemory& from, int from_slot, const HeadMemory& to,
                int to_slot) {
  const auto copy = shape.dtype == DType::kF32 ? copy_slot<float> : copy_slot<std::uint16_t>;
  copy(from, from_slot, to, to_slot, shape.width);
}

}  // namespace

Result<std::vector<std::shared_ptr<Page>>> pack(PagePool& pool,
                                                const std::vector<const Page*>& pages,
                                                const std::vector<SideSlots>& staying,
                                                ForkJoin* threads) {
  const PageShape& shape = pool.shape();
  const auto heads = static_cast<std::size_t>(shape.kv_heads);
  std::vector<std::vector<HeadEntries>> made(pages.size());
  for (auto& entries : made) entries.resize(shape.sides());
  for (std::size_t side = 0; side < shape.sides(); ++side) {
    int count = 0;
    for (std::size_t p = 0; p < pages.size(); ++p) {
      made[p][side].slots = staying[p][side];
      made[p][side].first = count;
      count += static_cast<int>(staying[p][side].size());
    }
    if (count == 0) continue;
    KVFS_ASSIGN(const std::shared_ptr<HeadStore> store, pool.make_store(count));
    for (std::size_t p = 0; p < pages.size(); ++p) {
      if (!made[p][side].slots.empty()) made[p][side].store = store;
    }
  }
  const auto fill = [&](int unit, int) {
    const auto side = static_cast<std::size_t>(unit);
    const auto layer = static_cast<int>(side / heads);
    const auto head = static_cast<int>(side % heads);
    for (std::size_t p = 0; p < pages.size(); ++p) {
      const HeadEntries& to = made[p][side];
      if (to.slots.empty()) continue;
      const Page::Head from = pages[p]->head(layer, head);
      int at = to.first;
      for (const std::uint8_t slot : to.slots) {
        const int from_slot = from.first + pages[p]->before(layer, head, slot);
        copy_entry(shape, from.memory, from_slot, to.store->memory(), at++);
      }
    }
  };
  const auto sides = static_cast<int>(shape.sides());
  if (threads != nullptr) {
    threads->for_each(sides, fill);
  } else {
    for (int side = 0; side < sides; ++side) fill(side, 0);
  }
  std::vector<std::shared_ptr<Page>> out;
  for (auto& entries : made) out.push_back(std::make_shared<Page>(pool, std::move(entries)));
  return out;
}

}  // namespace kvfs::model::cpu
