// What the HTTP handlers work on. References: all of it outlives the server.
#pragma once

#include <functional>
#include <string>

#include "engine/sched/catalog.h"
#include "engine/sched/scheduler.h"
#include "engine/store/store.h"

namespace kvfs::daemon::http {

struct Services {
  store::Store& store;
  sched::Scheduler& scheduler;
  sched::Catalog& catalog;
  // Tells the mount, if there is one, and calls back when the kernel has heard of it; any thread.
  std::function<void(StateId, std::function<void()> told)> state_changed;
  std::function<void()> shut_down;  // asks the daemon to end; returns at once; any thread
  std::string mount_point;          // "" without a mount
  std::string store_directory;
  std::string version;
};

}  // namespace kvfs::daemon::http
