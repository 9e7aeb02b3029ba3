#include "engine/store/blocks.h"

#include <algorithm>
#include <string>

#include "engine/store/digests.h"
#include "engine/store/keys.h"
#include "engine/store/layouts.h"

namespace kvfs::store {
namespace {

std::string name_of(BlockId id) { return "block " + std::to_string(id.value); }

Result<ByteSpan> stored_block(const Txn& txn, BlockId id) {
  KVFS_ASSIGN(const auto bytes, txn.get(Table::kBlocks, key_of(id)));
  if (!bytes) return fail(ErrorCode::kNotFound, name_of(id), "the store does not hold it");
  return *bytes;
}

Result<std::optional<BlockId>> stored_id(const Txn& txn, Table table, ByteSpan key) {
  KVFS_ASSIGN(const auto bytes, txn.get(table, key));
  if (!bytes) return std::nullopt;
  ByteReader in(*bytes);
  const auto id = in.id<BlockId>();
  if (!in.ok()) return fail(ErrorCode::kCorrupt, "an index entry of a block", "it is cut short");
  return id;
}

Status put_id(Txn& txn, Table table, ByteSpan key, BlockId id) {
  ByteWriter out;
  out.id(id);
  return txn.put(table, key, out.bytes());
}

Status put_references(Txn& txn, BlockId id, std::uint32_t references) {
  ByteWriter out;
  out.number(references);
  return txn.put(Table::kBlockReferences, key_of(id), out.bytes());
}

// The first block under a key keeps the entry while it lives: equal keys mean equal bits.
Status enter_prefix(Txn& txn, const BlockKey& key, BlockId id) {
  if (!key) return {};
  KVFS_ASSIGN(const auto entry, txn.get(Table::kPrefix, key.bytes));
  return entry ? Status() : put_id(txn, Table::kPrefix, key.bytes, id);
}

}  // namespace

Result<BlockRecord> read_block(const Txn& txn, BlockId id) {
  KVFS_ASSIGN(const ByteSpan bytes, stored_block(txn, id));
  KVFS_ASSIGN(BlockRecord block, decode_block(bytes, name_of(id)));
  KVFS_ASSIGN(block.references, read_references(txn, id));
  return block;
}

Result<BlockSummary> read_summary(const Txn& txn, BlockId id) {
  KVFS_ASSIGN(const ByteSpan bytes, stored_block(txn, id));
  return decode_summary(bytes, name_of(id));
}

Result<std::uint32_t> read_references(const Txn& txn, BlockId id) {
  KVFS_ASSIGN(const auto bytes, txn.get(Table::kBlockReferences, key_of(id)));
  if (!bytes) return fail(ErrorCode::kNotFound, name_of(id), "the store does not hold it");
  ByteReader in(*bytes);
  const auto references = in.number<std::uint32_t>();
  if (!in.ok()) return fail(ErrorCode::kCorrupt, name_of(id), "its reference count is cut short");
  return references;
}

// Equal records under an equal hash, confirmed byte by byte.
Result<std::optional<BlockId>> find_block(const Txn& txn, const BlockRecord& block) {
  const Bytes record = encode(block);
  KVFS_ASSIGN(const auto id, stored_id(txn, Table::kBlockDigests, hash128(record)));
  if (!id) return std::nullopt;
  KVFS_ASSIGN(const ByteSpan other, stored_block(txn, *id));
  if (as_text(other) != as_text(record)) return std::nullopt;
  return id;
}

Result<std::optional<BlockId>> find_prefix(const Txn& txn, const BlockKey& previous_key,
                                           const BlockKey& key,
                                           const std::vector<BlockToken>& tokens) {
  KVFS_ASSIGN(const auto id, stored_id(txn, Table::kPrefix, key.bytes));
  if (!id) return std::nullopt;
  KVFS_ASSIGN(const BlockRecord block, read_block(txn, *id));
  // Whether a token's path matters is the key's to say: where both paths give the same bits, what
  // was generated is found when it is read again.
  const bool same = block.key == key && block.previous_key == previous_key &&
                    std::ranges::equal(block.tokens, tokens, [](const auto& a, const auto& b) {
                      return a.token == b.token && a.position == b.position;
                    });
  return same ? id : std::nullopt;
}

Result<BlockId> put_block(Txn& txn, Counters& counters, const BlockRecord& block) {
  KVFS_ASSIGN(const auto known, find_block(txn, block));
  if (known) {
    KVFS_TRY(enter_prefix(txn, block.key, *known));
    return *known;
  }
  const BlockId id{counters.next_block++};
  const Bytes record = encode(block);
  KVFS_TRY(txn.put(Table::kBlocks, key_of(id), record));
  KVFS_TRY(put_references(txn, id, 0));
  const auto digest = hash128(record);
  KVFS_ASSIGN(const auto taken, txn.get(Table::kBlockDigests, digest));
  // Under a colliding hash the first block keeps the entry; this one is merely never found by it.
  if (!taken) KVFS_TRY(put_id(txn, Table::kBlockDigests, digest, id));
  KVFS_TRY(enter_prefix(txn, block.key, id));
  ++counters.statistics.blocks;
  return id;
}

Status refer_to_block(TransactionScope& scope, BlockId id) {
  KVFS_ASSIGN(const std::uint32_t references, read_references(scope.txn, id));
  return put_references(scope.txn, id, references + 1);
}

Status drop_reference(TransactionScope& scope, BlockId id) {
  KVFS_ASSIGN(const std::uint32_t references, read_references(scope.txn, id));
  if (references == 0) {
    return fail(ErrorCode::kCorrupt, name_of(id), "a version lists it, but its count is zero",
                "run kvfsd --check");
  }
  if (references == 1) scope.orphans.push_back(id);
  return put_references(scope.txn, id, references - 1);
}

Status erase_block(Txn& txn, Counters& counters, BlockId id) {
  KVFS_ASSIGN(const ByteSpan bytes, stored_block(txn, id));
  const auto digest = hash128(bytes);
  KVFS_ASSIGN(const BlockRecord block, decode_block(bytes, name_of(id)));
  KVFS_ASSIGN(const auto by_digest, stored_id(txn, Table::kBlockDigests, digest));
  if (by_digest == id) KVFS_TRY(txn.erase(Table::kBlockDigests, digest));
  if (block.key) {
    KVFS_ASSIGN(const auto by_key, stored_id(txn, Table::kPrefix, block.key.bytes));
    if (by_key == id) KVFS_TRY(txn.erase(Table::kPrefix, block.key.bytes));
  }
  KVFS_TRY(txn.erase(Table::kBlockReferences, key_of(id)));
  KVFS_TRY(txn.erase(Table::kBlocks, key_of(id)));
  --counters.statistics.blocks;
  return {};
}

}  // namespace kvfs::store
