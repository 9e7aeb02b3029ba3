#include "fs/mount.h"

#include <chrono>
#include <mutex>
#include <set>
#include <thread>
#include <utility>

#include "codec/base/log.h"
#include "fs/context.h"
#include "fs/mount_point.h"
#include "fs/nodes/root.h"
#include "fs/options.h"
#include "fs/session.h"
#include "fs/spooler.h"
#include "fs/store_changes.h"

namespace kvfs::fs {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kStartBound{10000};
constexpr milliseconds kTellBound{2000};  // the kernel hears of a new version before `done` is said
constexpr milliseconds kSubmitBound{400};  // at the end, for prompts that were closed a moment ago
constexpr milliseconds kAnswerBound{400};  // and for what the store still has to answer

}  // namespace

struct Mount::Impl {
  std::shared_ptr<Context> context;  // shared, see context.h
  std::shared_ptr<Session> session;  // shared with requests not answered yet
  std::thread loop;
  std::uint64_t watch = 0;  // of the store

  std::mutex stop_mutex;  // one stop() at a time
  std::mutex mutex;       // guards everything below
  bool stopping = false;
  bool loop_ended = false;
  std::function<void()> on_unmounted;

  void serve(int workers) {
    session->loop(workers);
    std::function<void()> callback;
    {
      const std::lock_guard lock(mutex);
      loop_ended = true;
      if (!stopping) callback = std::move(on_unmounted);
    }
    if (callback) callback();
  }

  void stop();
};

// While the workers still serve, everything that waits is let go: parked reads, chores, the
// notifier (it may wait for a lock that a request holds). Only then the loop ends.
void Mount::Impl::stop() {
  const std::lock_guard one(stop_mutex);
  {
    const std::lock_guard lock(mutex);
    stopping = true;
    on_unmounted = nullptr;
  }
  if (!loop.joinable()) return;
  context->store.unwatch(watch);
  session->cancel_parked();
  context->chores.stop();
  context->arriving.stop();
  context->notifier.stop();
  context->background_notifier.stop();
  session->break_loop(loop);
  loop.join();
  session->unmount();
  spooler::submit_closed(*context, std::chrono::steady_clock::now() + kSubmitBound);
  if (session->wait_requests(kAnswerBound)) {
    session->drop_opened();  // they keep versions in the store, which may be closed after this
  } else {
    KVFS_WARN("{}: unmounted with requests that the store has not answered yet",
              context->mount_point);
  }
}

Mount::Mount(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Mount::~Mount() { stop(); }

Result<std::unique_ptr<Mount>> Mount::start(store::Store& store, sched::Scheduler& scheduler,
                                            sched::Catalog& catalog, const MountOptions& options) {
  KVFS_ASSIGN(const ParsedOptions parsed, parse_options(options.fuse_options));
  KVFS_ASSIGN(const std::filesystem::path where, prepare_mount_point(options.mount_point));

  auto impl = std::make_unique<Impl>();
  impl->context = std::make_shared<Context>(store, scheduler, catalog, where.string(),
                                            options.store_directory, parsed.behaviour);
  impl->context->nodes.remember(std::make_shared<Root>(*impl->context));
  KVFS_ASSIGN(impl->session, Session::create(impl->context, parsed.fuse));
  KVFS_TRY(impl->session->mount(where.string()));
  impl->context->notifier.serve(impl->session->fuse());
  impl->context->background_notifier.serve(impl->session->fuse());

  std::unique_ptr<Mount> mount(new Mount(std::move(impl)));
  Impl& made = *mount->impl_;
  made.watch = store.watch(
      [context = made.context](const store::Change& change) { heed(*context, change); });
  made.loop = std::thread([&made, workers = options.workers] { made.serve(workers); });
  if (!made.session->wait_initialized(kStartBound)) {
    return fail(ErrorCode::kIo, "mounting on " + where.string(), "the kernel does not answer",
                "see the kernel's log");
  }
  set_read_ahead(where);
  if (const auto begun = store.states_with_staged()) {
    Context& context = *made.context;
    for (const StateId state : *begun) context.arrivals.resume(context, state);
  }
  return mount;
}

void Mount::advanced(StateId state) {
  Context& context = *impl_->context;
  for (const NodePtr& node : context.nodes.of(state)) {
    const auto entry = node->entry();
    if (entry && !node->fresh()) context.notifier.entry(entry->directory, entry->name);
  }
  for (const StatePart part : {StatePart::kDirectory, StatePart::kKv}) {
    context.notifier.listing(ino_of(state, part));
  }
  context.notifier.wait(state, kTellBound);
}

void Mount::job_changed(StateId state, const std::string& job) {
  spooler::settle(*impl_->context, state, job);
}

void Mount::state_changed(StateId state, std::function<void()> told) {
  Context& context = *impl_->context;
  std::set<std::pair<Ino, std::string>> entries;
  for (const NodePtr& node : context.nodes.of(state)) {
    context.background_notifier.attributes(node->ino());
    if (const auto entry = node->entry()) entries.insert({entry->directory, entry->name});
  }
  for (const auto& [directory, name] : entries) {
    context.background_notifier.entry(directory, name);
    context.background_notifier.attributes(directory);
  }
  context.background_notifier.then(std::move(told));
}

void Mount::on_unmounted(std::function<void()> callback) {
  {
    const std::lock_guard lock(impl_->mutex);
    if (!impl_->loop_ended) {
      impl_->on_unmounted = std::move(callback);
      return;
    }
    if (impl_->stopping) return;
  }
  callback();
}

void Mount::stop() { impl_->stop(); }

}  // namespace kvfs::fs
