// The counters in the table meta: ids to give out next, and the statistics. They change inside the
// transaction they count, so they are exact after a crash, and an id is never given out twice.
#pragma once

#include "engine/store/environment.h"
#include "engine/store/store.h"

namespace kvfs::store {

inline constexpr std::uint32_t kStoreFormat = 1;

struct Counters {
  std::uint64_t next_inode = 1024;  // StateId and FileId, which are inodes both; below: the mount's
  std::uint64_t next_version = 1;
  std::uint64_t next_block = 1;
  std::uint64_t next_job = 1;
  StoreStatistics statistics;
};

// kUnsupported when a newer kvfsd wrote the store; writes format and counters into an empty one.
Status check_format(Txn& txn);

Result<Counters> load_counters(const Txn& txn);
Status save_counters(Txn& txn, const Counters& counters);

}  // namespace kvfs::store
