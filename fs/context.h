// What every node of one mount works with. Any thread.
//
// Ownership: shared by the session (with it nodes, handles and requests) and by callbacks that the
// store or the scheduler holds, which may come after the mount's end: they keep it by alive().
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "engine/sched/catalog.h"
#include "engine/sched/scheduler.h"
#include "engine/sched/verbs.h"
#include "engine/store/store.h"
#include "fs/arrivals.h"
#include "fs/chores.h"
#include "fs/clock.h"
#include "fs/hidden_names.h"
#include "fs/incoming.h"
#include "fs/inode.h"
#include "fs/listings.h"
#include "fs/name_times.h"
#include "fs/node_table.h"
#include "fs/notifier.h"
#include "fs/open_files.h"
#include "fs/refusals.h"
#include "fs/staging.h"
#include "fs/version_files.h"

namespace kvfs::fs {

struct Behaviour {
  bool noblock = false;                     // reads of a growing reply end at its present size
  std::chrono::milliseconds spool_delay{};  // from the last release to the submission
  bool snapdir = false;                     // `.snap` is listed
};

struct Context : std::enable_shared_from_this<Context> {
  Context(store::Store& the_store, sched::Scheduler& the_scheduler, sched::Catalog& the_catalog,
          std::string where, std::filesystem::path store_directory, Behaviour how);
  std::shared_ptr<Context> alive() { return shared_from_this(); }
  // Names in a directory came, went, or stand for something else: the kernel hears of it.
  void names_changed(Ino directory);

  store::Store& store;
  sched::Scheduler& scheduler;
  sched::Catalog& catalog;
  const std::string mount_point;
  const std::filesystem::path store_disk;  // where the store is; may be empty
  const Behaviour behaviour;
  const std::uint32_t uid;  // of the daemon: owns what no user owns
  const std::uint32_t gid;
  const std::int64_t started_ns;

  InoSource inos;
  NodeTable nodes;
  Listings listings;
  HiddenNames hidden;
  NameTimes name_times;
  Refusals refusals;
  VersionCache versions;
  Staging staging;
  OpenFiles files;  // users'
  Arrivals arrivals;
  Incoming incoming;  // bundles
  Notifier notifier;  // of new versions alone: `done` waits for it
  // Of the rest: nobody waits for it, so it may wait for whoever holds a directory.
  Notifier background_notifier;
  Chores arriving;  // of copies: what reads them whole
  Chores chores;    // last: their chores use the rest
};

// Answers when whatever was answered before is on disk.
void reach_disk(Context& context, std::function<void(Status)> done);

}  // namespace kvfs::fs
