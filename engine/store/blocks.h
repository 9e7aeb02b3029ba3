// The tables blocks, block_digests, block_references and prefix: manifests, each kept once, counted
// by the versions that list it. A prefix entry is weak: it goes with its block.
#pragma once

#include <optional>

#include "engine/store/environment.h"
#include "engine/store/transaction_scope.h"

namespace kvfs::store {

Result<BlockRecord> read_block(const Txn& txn, BlockId id);  // with its references
Result<BlockSummary> read_summary(const Txn& txn, BlockId id);
Result<std::uint32_t> read_references(const Txn& txn, BlockId id);
Result<std::optional<BlockId>> find_block(const Txn& txn, const BlockRecord& block);
Result<std::optional<BlockId>> find_prefix(const Txn& txn, const BlockKey& previous_key,
                                           const BlockKey& key,
                                           const std::vector<BlockToken>& tokens);

// The block equal to this one, or a new one without references; enters it into the prefix index.
Result<BlockId> put_block(Txn& txn, Counters& counters, const BlockRecord& block);
Status refer_to_block(TransactionScope& scope, BlockId id);
Status drop_reference(TransactionScope& scope, BlockId id);
// Erases a block that nothing refers to, with its prefix entry.
Status erase_block(Txn& txn, Counters& counters, BlockId id);

}  // namespace kvfs::store
