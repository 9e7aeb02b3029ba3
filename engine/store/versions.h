// The table versions: what states knew, immutable but for the count of those that hold it.
#pragma once

#include "engine/store/transaction_scope.h"

namespace kvfs::store {

Result<VersionRecord> read_version(const Txn& txn, VersionId id);

// The following are parts of WriteTransaction's methods.
Result<VersionId> put_version(TransactionScope& scope, VersionRecord record);
Status hold(TransactionScope& scope, VersionId id);
Status release(TransactionScope& scope, VersionId id);

}  // namespace kvfs::store
