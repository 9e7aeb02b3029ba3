// A copy that arrives: files are staged for a state until all that state.json implies is there and
// matches its root; then the whole replaces what the state was, in one step.
//
// What is not staged is taken from the state as it is, where it fits: rsync sends only what
// differs. Threads: look() from any, it reads names and state.json alone; settle() from one that
// may wait for the disk, one at a time for a state.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "engine/sched/catalog.h"
#include "engine/sched/scheduler.h"
#include "engine/store/store.h"

namespace kvfs::sched {

struct Arrival {
  bool begun = false;                // something is staged
  std::vector<std::string> missing;  // of what state.json implies, not staged; itself while unknown
  bool complete = false;             // all of it is staged
  bool fits = false;                 // with what the state has it could be complete
  // "incomplete: waiting for kv/layer-007.safetensors"; "" when nothing is staged.
  std::string line() const;
};
Result<Arrival> look(store::Store& store, StateId state);

// Reads what arrived and makes it the state. kAgain: something is missing still; another error: it
// is all there and cannot be, and stays staged. True: the state has changed.
Result<bool> settle(store::Store& store, Scheduler& scheduler, Catalog& catalog, StateId state);

}  // namespace kvfs::sched
