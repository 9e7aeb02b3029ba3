// The composition root: everything concrete is built here, in order, and ends in reverse.
//
// store → catalog → scheduler → mount → HTTP. Main thread only; lifetime must outlive it.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include <tl/expected.hpp>

#include "daemon/config.h"
#include "daemon/exit_code.h"
#include "daemon/http/server.h"
#include "daemon/lifetime.h"
#include "engine/sched/catalog.h"
#include "engine/sched/scheduler.h"
#include "engine/store/store.h"
#include "fs/mount.h"

namespace kvfs::daemon {

class Composition {
 public:
  // Returns when the mount and the sockets answer.
  static tl::expected<std::unique_ptr<Composition>, Failure> start(const Config& config,
                                                                   Lifetime& lifetime);
  ~Composition();  // stop()

  // No new clients; the mount goes, running jobs commit what they have; the store closes.
  void stop();

  std::string summary() const;  // one line: where and with what it serves

 private:
  Composition(const Config& config, Lifetime& lifetime) : config_(config), lifetime_(lifetime) {}
  Status start_store();
  Status start_catalog();
  Status start_scheduler();
  Status start_mount();
  Status start_server();
  void on_event(const sched::Event& event);

  const Config config_;
  Lifetime& lifetime_;
  std::unique_ptr<store::Store> store_;
  std::unique_ptr<sched::Catalog> catalog_;
  std::unique_ptr<sched::Scheduler> scheduler_;
  std::unique_ptr<fs::Mount> mount_;
  std::unique_ptr<http::Server> server_;
  std::atomic<fs::Mount*> listening_mount_ = nullptr;  // null while there is none to tell
};

// --check: verifies the store, prints what was found; kExitStore when it is damaged.
ExitCode check_store(const Config& config);

}  // namespace kvfs::daemon
