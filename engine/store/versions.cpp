#include "engine/store/versions.h"

#include <string>

#include "engine/store/blocks.h"
#include "engine/store/digests.h"
#include "engine/store/keys.h"
#include "engine/store/layouts.h"
#include "engine/store/write_transaction.h"

namespace kvfs::store {
namespace {

std::string name_of(VersionId id) { return "version " + std::to_string(id.value); }

std::uint32_t heads_of(const std::vector<LayerShape>& layers) {
  std::uint32_t heads = 0;
  for (const LayerShape& layer : layers) heads += layer.kv_heads;
  return heads;
}

std::uint64_t kv_bytes_of(const VersionRecord& version) {
  std::uint64_t elements = 0;
  for (std::size_t i = 0; i < version.layers.size(); ++i) {
    const LayerShape& layer = version.layers[i];
    for (std::uint32_t length : version.extents[i].lengths) {
      elements += std::uint64_t{length} * (std::uint64_t{layer.key_width} + layer.value_width);
    }
  }
  return elements * size_of(version.kv_dtype);
}

tl::unexpected<Error> misfit(BlockId id, const std::string& why) {
  return fail(ErrorCode::kInvalid, "add a version",
              "block " + std::to_string(id.value) + " " + why);
}

// A block whose heads hold different positions, or not all of them any.
Status extend_raggedly(VersionRecord& version, BlockId id, const BlockRecord& block) {
  std::vector<std::vector<const Segment*>> by_layer(version.layers.size());
  for (const Segment& segment : block.segments) {
    if (segment.layer >= version.layers.size() ||
        segment.head_begin + segment.head_count > version.layers[segment.layer].kv_heads) {
      return misfit(id, "has a layer or a head that the model has not");
    }
    by_layer[segment.layer].push_back(&segment);
  }
  for (std::size_t layer = 0; layer < by_layer.size(); ++layer) {
    LayerExtent& extent = version.extents[layer];
    int heads = 0;
    for (const Segment* segment : by_layer[layer]) {
      heads += segment->head_count;
      extent.own_positions |= segment->positions != by_layer[layer].front()->positions;
      for (int head = 0; head < segment->head_count; ++head) {
        extent.lengths[static_cast<std::size_t>(segment->head_begin + head)] +=
            static_cast<std::uint32_t>(segment->positions.size());
      }
    }
    extent.own_positions |= heads != 0 && heads != version.layers[layer].kv_heads;
  }
  return {};
}

// Works out what follows from the blocks: tokens, lengths, bytes, root.
Status fill_in(const Txn& txn, VersionRecord& version) {
  version.n_tokens = version.text_bytes = version.kv_bytes = 0;
  version.extents.clear();
  for (const LayerShape& layer : version.layers) {
    version.extents.push_back({.lengths = std::vector<std::uint32_t>(layer.kv_heads)});
  }
  const std::uint32_t all_heads = heads_of(version.layers);
  std::vector<ContentDigest> digests;
  std::int64_t last_index = -1;
  for (BlockId id : version.blocks) {
    KVFS_ASSIGN(const BlockSummary summary, read_summary(txn, id));
    if (summary.index <= last_index) return misfit(id, "is out of order");
    last_index = summary.index;
    version.n_tokens += summary.token_count;
    version.text_bytes += summary.text_bytes;
    version.kv_bytes += summary.kv_bytes;
    digests.push_back(summary.digest);
    if (summary.length && summary.heads == all_heads) {
      for (LayerExtent& extent : version.extents) {
        for (std::uint32_t& length : extent.lengths) length += *summary.length;
      }
    } else {
      KVFS_ASSIGN(const BlockRecord block, read_block(txn, id));
      KVFS_TRY(extend_raggedly(version, id, block));
    }
  }
  if (version.kv_bytes != kv_bytes_of(version)) {
    return fail(ErrorCode::kInvalid, "add a version",
                "its blocks hold " + std::to_string(version.kv_bytes) +
                    " bytes of KV, its layers' shapes say " + std::to_string(kv_bytes_of(version)));
  }
  version.root = root_digest(version, digests);
  return {};
}

Status put_record(TransactionScope& scope, VersionId id, const VersionRecord& version) {
  return scope.txn.put(Table::kVersions, key_of(id), encode(version));
}

}  // namespace

bool has_gaps(const VersionRecord& version) {
  for (std::size_t i = 0; i < version.layers.size(); ++i) {
    if (version.layers[i].kept < kBlockTokens) continue;
    for (const std::uint32_t length : version.extents[i].lengths) {
      if (length != version.n_tokens) return true;
    }
  }
  return false;
}

Result<VersionRecord> read_version(const Txn& txn, VersionId id) {
  KVFS_ASSIGN(const auto bytes, txn.get(Table::kVersions, key_of(id)));
  if (!bytes) return fail(ErrorCode::kNotFound, name_of(id), "it has been dropped");
  return decode_version(*bytes, name_of(id));
}

Result<VersionId> put_version(TransactionScope& scope, VersionRecord record) {
  KVFS_TRY(fill_in(scope.txn, record));
  record.references = 0;
  for (BlockId block : record.blocks) KVFS_TRY(refer_to_block(scope, block));
  const VersionId id{scope.counters.next_version++};
  KVFS_TRY(put_record(scope, id, record));
  ++scope.counters.statistics.versions;
  scope.loose.insert(id);
  return id;
}

Status hold(TransactionScope& scope, VersionId id) {
  KVFS_ASSIGN(VersionRecord version, read_version(scope.txn, id));
  ++version.references;
  return put_record(scope, id, version);
}

Status release(TransactionScope& scope, VersionId id) {
  KVFS_ASSIGN(VersionRecord version, read_version(scope.txn, id));
  if (version.references == 0) {
    return fail(ErrorCode::kInvalid, name_of(id), "it was released more often than it was held");
  }
  if (--version.references == 0) scope.loose.insert(id);
  return put_record(scope, id, version);
}

Status finish_transaction(TransactionScope& scope) {
  for (VersionId id : scope.loose) {
    KVFS_ASSIGN(const VersionRecord version, read_version(scope.txn, id));
    if (version.references != 0) continue;
    for (BlockId block : version.blocks) KVFS_TRY(drop_reference(scope, block));
    KVFS_TRY(scope.txn.erase(Table::kVersions, key_of(id)));
    --scope.counters.statistics.versions;
  }
  return save_counters(scope.txn, scope.counters);
}

Result<VersionRecord> WriteTransaction::version(VersionId id) {
  return read_version(scope_.txn, id);
}
Result<VersionId> WriteTransaction::add_version(const VersionRecord& record) {
  return put_version(scope_, record);
}
Status WriteTransaction::hold_version(VersionId id) { return hold(scope_, id); }
Status WriteTransaction::release_version(VersionId id) { return release(scope_, id); }

}  // namespace kvfs::store
