// A file becomes a state: one of this project's bundles, or a cache that users of transformers
// saved (codec/container/cache_import.h). What is not what it says, or not of the model, becomes
// none.
//
// A bundle that says what state it is, and whose root is that of its tensors, is that state, origin
// and all. Where its tensors are others the state is `edited`, unless nobody wrote the file anew
// since it was exported: then it is damaged. A file that says nothing is `imported`, for the model
// the state names, else the default, else the only one of its shapes; its tensors are converted to
// the model's type, which the origin says, and ids that the model has not read yet stay there too.
// None of it enters the prefix index.
//
// Threads: any that may wait for the disk. Errors: kInvalid (with what was expected and what was
// found), kCorrupt, kUnsupported, kExists, kBusy (jobs change the state), kPermission (a snapshot).
#pragma once

#include <cstdint>
#include <string>

#include "codec/base/bytes.h"
#include "engine/sched/catalog.h"
#include "engine/sched/scheduler.h"
#include "engine/sched/verbs.h"

namespace kvfs::sched {

struct BundleImport {
  ByteSpan file;   // must not change meanwhile
  StateId parent;  // none: directly under states/
  std::string name;
  Owner owner;                   // of a new state; one that is there stays its owner's
  std::string model;             // "": as above
  std::int64_t modified_ns = 0;  // the state's, as a copy's; 0: now
};

// The state of that name, made or, in one step, replaced.
Result<StateId> import_bundle(store::Store& store, Scheduler& scheduler, Catalog& catalog,
                              const BundleImport& wanted);

// "a.pkl.gz" → "a"; empty: no suffix of a file that can be imported.
std::string_view bundle_stem(std::string_view file_name);

}  // namespace kvfs::sched
