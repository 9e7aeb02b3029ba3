// The tables nodes, extents, pieces, piece_references and staged: what users leave beside states,
// and what they copy onto states' data. A piece is kept once, found by the hash of its bytes, and
// counted by the extents that name it; it goes with the last of them, in the same transaction.
//
// A hit is confirmed by comparing bytes; where a hash collides the next seed names the newcomer.
// Reading checks that a piece has its hash: kCorrupt otherwise.
#pragma once

#include "engine/store/transaction_scope.h"

namespace kvfs::store {

Result<FileNode> read_node(const Txn& txn, FileId id);
Result<std::optional<Bytes>> read_piece(const Txn& txn, FileId id, std::uint64_t number);
Result<std::optional<std::uint64_t>> find_piece(const Txn& txn, FileId id, std::uint64_t from);
Result<NameEntry> read_staged(const Txn& txn, StateId state, std::string_view path);
Result<std::vector<NameEntry>> list_staged(const Txn& txn, StateId state);
Result<std::vector<StateId>> list_staging_states(const Txn& txn);

// The files beside a state and those staged for it. Part of WriteTransaction::remove_state.
Status remove_nodes_of(TransactionScope& scope, StateId state);
// Those that a crash left without a name.
Status reap_unlinked(TransactionScope& scope);

// Whether the bytes have the hash that their id is.
bool is_piece(const PieceId& id, ByteSpan bytes);

}  // namespace kvfs::store
