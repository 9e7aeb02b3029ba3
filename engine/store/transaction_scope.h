// What one write transaction carries while its body runs, and what it leaves for after the commit.
#pragma once

#include <set>
#include <vector>

#include "engine/store/changes.h"
#include "engine/store/counters.h"
#include "engine/store/environment.h"

namespace kvfs::store {

struct TransactionScope {
  Txn& txn;
  Counters counters;
  std::set<VersionId> loose;     // versions that may have lost or never had a reference
  std::vector<BlockId> orphans;  // blocks that lost their last one
  bool watched = false;          // somebody wants to hear of changes
  std::vector<Change> changes;   // while it is
};

// Notes it where somebody watches: `change` says what, its state's path is found here.
Status note_change(TransactionScope& scope, Change change);

// Drops the loose versions that nothing refers to and writes the counters.
Status finish_transaction(TransactionScope& scope);

}  // namespace kvfs::store
