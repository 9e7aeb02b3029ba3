// Going back: a state that knows its first tokens only, or what a snapshot of it knew.
//
// Threads: any that may wait for the disk; nothing of the model runs. The version that is left goes
// when nothing else holds it. kBusy while a job is changing the state; kPermission for a snapshot.
#pragma once

#include <cstdint>
#include <string_view>

#include "engine/sched/catalog.h"
#include "engine/sched/scheduler.h"
#include "engine/store/store.h"

namespace kvfs::sched {

// Whole blocks stay as they are; the one that is cut is made anew from its rows. kInvalid: it never
// had so many. kUnsupported: within a block of a model whose layers keep no row of each position,
// or of a model that is not there to say where the block's text ends.
Status rollback(store::Store& store, Scheduler& scheduler, Catalog& catalog, StateId state,
                std::uint64_t n_tokens);
Status rollback_to(store::Store& store, Scheduler& scheduler, StateId state,
                   std::string_view snapshot);
// By the command line's word: "512" or "@before".
Status rollback_word(store::Store& store, Scheduler& scheduler, Catalog& catalog, StateId state,
                     std::string_view target);

}  // namespace kvfs::sched
