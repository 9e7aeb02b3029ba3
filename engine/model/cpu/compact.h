// Entries moved to consecutive positions: what pruning with positions=compact does last.
//
// A key at position p lies there turned by p's angles. It is turned on by the difference of the
// angles of its new position and of its old one, in fp32, and rounded to the pages' type once; a
// head's dimensions that RoPE does not turn, and its values, keep their bits. So with scaled
// frequencies (a position's angles are what they are, whatever scaled them) and, where those of
// late positions are others, with both of them.
//
// Engine thread.
#pragma once

#include <memory>

#include "codec/base/result.h"
#include "engine/model/cpu/fork_join.h"
#include "engine/model/cpu/forward.h"
#include "engine/model/cpu/kv_pages.h"
#include "engine/model/cpu/paged_sequence.h"

namespace kvfs::model::cpu {

// Null: each entry is where it belongs. Errors: Model::compact().
Result<std::unique_ptr<PagedSequence>> compacted(PagePool& pool, const Forward& forward,
                                                 ForkJoin& threads, const PagedSequence& sequence);

}  // namespace kvfs::model::cpu
