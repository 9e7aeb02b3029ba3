#include "daemon/composition.h"

#include <sys/stat.h>
#include <unistd.h>

#include "codec/base/log.h"

namespace kvfs::daemon {
namespace {

constexpr std::size_t kMostFuseThreads = 8;

Status check_fuse() {
  struct stat facts {};
  const bool there = ::stat("/dev/fuse", &facts) == 0 && S_ISCHR(facts.st_mode);
  if (there && ::access("/dev/fuse", R_OK | W_OK) == 0) return {};
  return fail(ErrorCode::kUnsupported, "mounting",
              there ? "no permission to use /dev/fuse" : "there is no device /dev/fuse",
              there ? "run as a user who may, or serve the socket alone with --no-mount"
                    : "load the fuse module, or serve the socket alone with --no-mount");
}

}  // namespace

tl::expected<std::unique_ptr<Composition>, Failure> Composition::start(const Config& config,
                                                                       Lifetime& lifetime) {
  std::unique_ptr<Composition> made(new Composition(config, lifetime));
  struct Pass {
    Status (Composition::*run)();
    ExitCode code;
    const char* says;
  };
  constexpr Pass kPasses[]{
      {&Composition::start_store, kExitStore, "opening the store"},
      {&Composition::start_catalog, kExitModel, "reading the models"},
      {&Composition::start_scheduler, kExitModel, "loading the default model"},
      {&Composition::start_mount, kExitMount, "mounting"},
      {&Composition::start_server, kExitFailure, "opening the sockets"},
  };
  if (!config.no_mount) {  // known before seconds are spent on the model
    if (Status fuse = check_fuse(); !fuse) {
      return tl::unexpected(Failure{std::move(fuse).error(), kExitMount});
    }
  }
  for (const Pass& pass : kPasses) {
    notify_manager(std::string("STATUS=") + pass.says);
    if (Status status = (*made.*pass.run)(); !status) {
      return tl::unexpected(Failure{std::move(status).error(), pass.code});
    }
  }
  return made;
}

Status Composition::start_store() {
  KVFS_ASSIGN(store_, store::Store::open({.directory = config_.store}));
  return {};
}

Status Composition::start_catalog() {
  KVFS_ASSIGN(catalog_, sched::Catalog::open({.models = config_.models,
                                              .directory = config_.models_directory,
                                              .cache_directory = config_.store / "cache",
                                              .compute = config_.compute,
                                              .device = config_.device}));
  return {};
}

Status Composition::start_scheduler() {
  KVFS_ASSIGN(scheduler_, sched::Scheduler::start(*store_, *catalog_,
                                                  {.threads = config_.threads,
                                                   .kv_budget = config_.kv_budget,
                                                   .memory = config_.memory,
                                                   .share_prefixes = config_.share_prefixes}));
  scheduler_->set_listener([this](const sched::Event& event) { on_event(event); });
  return {};
}

Status Composition::start_mount() {
  if (config_.no_mount) return {};
  KVFS_ASSIGN(mount_, fs::Mount::start(*store_, *scheduler_, *catalog_,
                                       {.mount_point = config_.mount,
                                        .fuse_options = config_.fuse_options,
                                        .workers = kMostFuseThreads,
                                        .store_directory = config_.store}));
  mount_->on_unmounted([this] { lifetime_.request_end("unmounted by somebody else"); });
  listening_mount_ = mount_.get();
  return {};
}

Status Composition::start_server() {
  http::Services services{.store = *store_,
                          .scheduler = *scheduler_,
                          .catalog = *catalog_,
                          .state_changed =
                              [this](StateId state, std::function<void()> told) {
                                if (fs::Mount* mount = listening_mount_) {
                                  mount->state_changed(state, std::move(told));
                                } else {
                                  told();
                                }
                              },
                          .shut_down = [this] { lifetime_.request_end("asked to on the socket"); },
                          .mount_point = config_.no_mount ? std::string() : config_.mount.string(),
                          .store_directory = config_.store.string(),
                          .version = KVFS_VERSION};
  http::ServerOptions options{.socket = config_.socket, .token_file = config_.token_file};
  if (config_.listen) {
    options.listen_host = config_.listen->host;
    options.listen_port = config_.listen->port;
  }
  KVFS_ASSIGN(server_, http::Server::start(lifetime_.io(), std::move(services), options));
  return {};
}

void Composition::on_event(const sched::Event& event) {
  fs::Mount* mount = listening_mount_;
  if (mount == nullptr) return;
  if (event.kind == sched::Event::Kind::kAdvanced) {
    mount->advanced(event.state);
  } else {
    mount->job_changed(event.state, event.job);
  }
}

void Composition::stop() {
  if (scheduler_) scheduler_->give_up_imports();
  if (server_) server_->stop_accepting();
  // Stopped but not yet destroyed: an event that was on its way may still reach it.
  listening_mount_ = nullptr;
  if (mount_) mount_->stop();
  // Ends the replies, so that those who listen over HTTP hear why.
  if (scheduler_) scheduler_->stop();
  server_.reset();
  mount_.reset();
  scheduler_.reset();
  catalog_.reset();
  store_.reset();
}

Composition::~Composition() { stop(); }

std::string Composition::summary() const {
  std::string text =
      config_.no_mount ? "serving " + config_.socket.string() : "serving " + config_.mount.string();
  text += " with " + catalog_->default_name();
  if (const std::string device = scheduler_->device(); !device.empty()) text += " on " + device;
  return text;
}

}  // namespace kvfs::daemon
