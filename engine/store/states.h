// The tables states and names: the tree of states, listed in byte order of names.
#pragma once

#include "engine/store/transaction_scope.h"

namespace kvfs::store {

// 1 to 255 bytes, no '/', no NUL, not "." or ".."; else kInvalid.
Status check_name(std::string_view name);

Result<StateRecord> read_state(const Txn& txn, StateId id);
Result<NameEntry> read_name(const Txn& txn, StateId parent, std::string_view name);
Result<std::vector<NameEntry>> list_names(const Txn& txn, StateId parent, std::string_view after,
                                          std::size_t limit);
// The state exists, or kNotFound.
Status require_state(const Txn& txn, StateId id);

}  // namespace kvfs::store
