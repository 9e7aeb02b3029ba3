// The mount: the filesystem of filesystem.md, served by libfuse's low-level API.
//
// Threads: start() spawns `workers` FUSE threads, a notifier (kernel invalidations) and a timer;
// all of them end in stop(). Every public method may be called from any thread but those. FUSE
// workers wait for nothing but the store's short reads: what must wait is parked and answered by a
// callback. Ownership: store, scheduler and catalog must outlive the mount; stop() it before
// stopping them. Failure: start() says what is in the way (mount point missing, not a directory,
// not empty, a mount already, no /dev/fuse, not permitted) and the way out. A stale mount left by a
// daemon that crashed is unmounted first.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "codec/base/ids.h"
#include "codec/base/result.h"
#include "engine/sched/catalog.h"
#include "engine/sched/scheduler.h"
#include "engine/store/store.h"

namespace kvfs::fs {

struct MountOptions {
  std::filesystem::path mount_point;
  // From -o: our own (noblock, snapdir, spool_delay=1s) and FUSE's (allow_other, ro, debug, …).
  std::vector<std::string> fuse_options;
  int workers = 8;                             // most FUSE threads
  std::filesystem::path store_directory = {};  // `df` shows its disk's free space; may be empty
};

class Mount {
 public:
  // Mounts and serves; returns when the mount answers.
  static Result<std::unique_ptr<Mount>> start(store::Store& store, sched::Scheduler& scheduler,
                                              sched::Catalog& catalog, const MountOptions& options);
  ~Mount();  // stop()

  // For the scheduler's listener, on its commit thread: a state has a new version. The kernel has
  // been told when it returns, or after a bound of 2 s when the kernel is slow to listen.
  void advanced(StateId state);
  // For the same listener: a job's status changed; a spooled file whose job ended vanishes.
  void job_changed(StateId state, const std::string& job);
  // For whoever changes the tree past the mount (HTTP, command line): names and attributes cached
  // by the kernel for the state and its directory are dropped. Returns at once; `told` is called
  // from another thread when the kernel has heard of it.
  void state_changed(StateId state, std::function<void()> told);

  // Called once, from a thread of the mount's own, when somebody else unmounted it. May not stop().
  void on_unmounted(std::function<void()> callback);

  // Unmounts (lazily when busy), answers what is parked, joins; less than a second. Idempotent.
  void stop();

 private:
  struct Impl;
  explicit Mount(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace kvfs::fs
