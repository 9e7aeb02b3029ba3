#include "engine/store/counters.h"

#include <string>

namespace kvfs::store {
namespace {

constexpr std::string_view kFormatKey = "format";
constexpr std::string_view kCountersKey = "counters";

}  // namespace

Status check_format(Txn& txn) {
  KVFS_ASSIGN(const auto stored, txn.get(Table::kMeta, as_bytes(kFormatKey)));
  if (!stored) {
    ByteWriter format;
    format.number(kStoreFormat);
    KVFS_TRY(txn.put(Table::kMeta, as_bytes(kFormatKey), format.bytes()));
    return save_counters(txn, {});
  }
  ByteReader in(*stored);
  const auto format = in.number<std::uint32_t>();
  if (!in.ok() || !in.at_end() || format == 0) {
    return fail(ErrorCode::kCorrupt, "open the store", "its format number does not parse",
                "restore the store from a backup");
  }
  if (format > kStoreFormat) {
    return fail(ErrorCode::kUnsupported, "open the store",
                "it has format " + std::to_string(format) + ", this kvfsd knows up to " +
                    std::to_string(kStoreFormat),
                "start the newer kvfsd that wrote it, or name another --store");
  }
  return {};
}

Result<Counters> load_counters(const Txn& txn) {
  KVFS_ASSIGN(const auto stored, txn.get(Table::kMeta, as_bytes(kCountersKey)));
  ByteReader in(stored.value_or(ByteSpan()));
  Counters counters;
  counters.next_inode = in.number<std::uint64_t>();
  counters.next_version = in.number<std::uint64_t>();
  counters.next_block = in.number<std::uint64_t>();
  counters.next_job = in.number<std::uint64_t>();
  StoreStatistics& statistics = counters.statistics;
  for (std::uint64_t* field :
       {&statistics.states, &statistics.versions, &statistics.blocks, &statistics.chunks,
        &statistics.bytes_logical, &statistics.bytes_unique, &statistics.bytes_stored}) {
    *field = in.number<std::uint64_t>();
  }
  if (!in.ok() || !in.at_end()) {
    return fail(ErrorCode::kCorrupt, "read the store's counters", "they do not parse",
                "restore the store from a backup");
  }
  return counters;
}

Status save_counters(Txn& txn, const Counters& counters) {
  ByteWriter out;
  out.number(counters.next_inode);
  out.number(counters.next_version);
  out.number(counters.next_block);
  out.number(counters.next_job);
  const StoreStatistics& statistics = counters.statistics;
  for (std::uint64_t field :
       {statistics.states, statistics.versions, statistics.blocks, statistics.chunks,
        statistics.bytes_logical, statistics.bytes_unique, statistics.bytes_stored}) {
    out.number(field);
  }
  return txn.put(Table::kMeta, as_bytes(kCountersKey), out.bytes());
}

}  // namespace kvfs::store
