// An archive (engine/store/archive.h) becomes a state, with its parameters, files and snapshots.
// Part of bundle_import.
//
// A state that is there gets the archive's version and parameters in one step; an archive with
// files or snapshots wants a name of its own.
#pragma once

#include "engine/sched/bundle_import.h"

namespace kvfs::sched {

struct ImportPlace {
  std::optional<StateId> state;  // that is there
  store::StateRecord record;     // as it is, or is to be made
};

Result<StateId> import_archive(store::Store& store, Scheduler& scheduler, Catalog& catalog,
                               const BundleImport& wanted, const ImportPlace& place);

}  // namespace kvfs::sched
