// Writes pages anew so that each head keeps some of its entries only, those of all the pages one
// after the other: what pruning leaves takes the memory of its entries, to a tile of keys a head.
//
// Engine thread; threads is used where it is not null.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "codec/base/result.h"
#include "engine/model/cpu/fork_join.h"
#include "engine/model/cpu/kv_pages.h"
#include "engine/model/side_slots.h"

namespace kvfs::model::cpu {

// One sparse page for each given. kTooLarge: memory holds the old and the new for a moment.
Result<std::vector<std::shared_ptr<Page>>> pack(PagePool& pool,
                                                const std::vector<const Page*>& pages,
                                                const std::vector<SideSlots>& staying,
                                                ForkJoin* threads);

}  // namespace kvfs::model::cpu
