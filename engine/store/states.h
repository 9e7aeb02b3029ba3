// The tables states, names and snapshots: the tree of states, listed in byte order of names.
#pragma once

#include "engine/store/transaction_scope.h"

namespace kvfs::store {

// 1 to 255 bytes, no '/', no NUL, not "." or ".."; else kInvalid.
Status check_name(std::string_view name);

Result<StateRecord> read_state(const Txn& txn, StateId id);
Result<NameEntry> read_name(const Txn& txn, StateId parent, std::string_view name);
Result<std::vector<NameEntry>> list_names(const Txn& txn, StateId parent, std::string_view after,
                                          std::size_t limit);
Status require_removable(const Txn& txn, StateId id, const StateRecord& state);
Result<StateId> read_snapshot(const Txn& txn, StateId of, std::string_view name);
Result<std::vector<NameEntry>> list_snapshots(const Txn& txn, StateId of, std::size_t limit);
Result<NameEntry> parse_entry(std::string_view name, ByteSpan value);
Bytes encode_entry(NameEntry::Kind kind, std::uint64_t id);
// Names from states/ on: "a/b"; of a snapshot "a/b@v1"; of none "".
Result<std::string> path_of(const Txn& txn, StateId id);
// The state exists, or kNotFound.
Status require_state(const Txn& txn, StateId id);

}  // namespace kvfs::store
