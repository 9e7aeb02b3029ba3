#include "engine/store/writer.h"

#include <exception>
#include <future>
#include <utility>

#include "codec/base/log.h"

namespace kvfs::store {
namespace {

constexpr std::size_t kGroupTasks = 64;
constexpr std::size_t kShownBytes = std::size_t{64} << 10;  // of an overlay: each change copies it
constexpr std::chrono::seconds kRetry{1};
constexpr std::size_t kGroupBytes = std::size_t{64} << 20;  // well below where LMDB begins to spill

// A body is others' code: what it throws must not end the process.
Status call(const Writer::Body& body, Txn& txn) {
  try {
    return body(txn);
  } catch (const std::exception& error) {
    return fail(ErrorCode::kInternal, "write to the store", error.what());
  }
}

}  // namespace

Writer::Writer(Environment& environment) : environment_(environment), thread_([this] { loop(); }) {}

Writer::~Writer() { stop(); }

void Writer::stop() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Writer::submit(Body body, Done done, std::size_t weight, Kept kept) {
  {
    std::lock_guard lock(mutex_);
    queue_.push_back({std::move(body), std::move(done), weight, kept, {}});
  }
  wake_.notify_one();
}

Status Writer::run(const Body& body, std::size_t weight) {
  if (on_writer_thread()) {
    return fail(ErrorCode::kInternal, "write to the store", "a write would wait for itself");
  }
  std::promise<Status> outcome;
  submit([&](Txn& txn) { return body(txn); },
         [&](Status status) { outcome.set_value(std::move(status)); }, weight);
  return outcome.get_future().get();
}

void Writer::loop() {
  for (Group group; take_group(group); group.clear()) {
    // Those at the front that are to be kept soon; behind one that is kept now they join its
    // commit.
    while (!group.empty() && group.front().kept == Kept::kSoon &&
           (!shown_ || shown_->bytes < kShownBytes)) {
      run_early(group.front());
      group.pop_front();
    }
    if (group.empty() && !(due_ && std::chrono::steady_clock::now() >= *due_)) continue;
    const Status committed = run_group(group);
    if (!committed && due_) due_ = std::chrono::steady_clock::now() + kRetry;
    for (Task& task : group) task.done(task.status && !committed ? committed : task.status);
  }
  Group none;
  if (txn_ || shown_) (void)run_group(none);
}

// Waits for work, or until a commit is due. False: the writer is to stop and nothing is left.
bool Writer::take_group(Group& group) {
  std::unique_lock lock(mutex_);
  const auto ready = [&] { return stop_ || !queue_.empty(); };
  if (due_) {
    wake_.wait_until(lock, *due_, ready);
  } else {
    wake_.wait(lock, ready);
  }
  if (stop_ && queue_.empty()) return false;
  std::size_t weight = 0;
  while (!queue_.empty() && group.size() < kGroupTasks) {
    weight += queue_.front().weight;
    if (!group.empty() && weight > kGroupBytes) break;
    group.push_back(std::move(queue_.front()));
    queue_.pop_front();
  }
  return true;
}

Status Writer::open() {
  if (txn_) return {};
  KVFS_ASSIGN(Txn txn, environment_.begin_write());
  if (shown_) KVFS_TRY(txn.apply(*shown_));
  txn_.emplace(std::move(txn));
  return {};
}

Status Writer::run_task(Task& task, TouchedKeys* touched) {
  KVFS_ASSIGN(Txn nested, txn_->begin_nested(touched));
  KVFS_TRY(call(task.body, nested));
  return nested.commit();
}

void Writer::run_early(Task& task) {
  TouchedKeys touched;
  task.status = open();
  if (task.status) task.status = run_task(task, &touched);
  if (task.status) {
    auto overlay = shown_ ? std::make_shared<Overlay>(*shown_) : std::make_shared<Overlay>();
    task.status = txn_->read(touched, *overlay);
    if (task.status) {
      shown_ = std::move(overlay);
      environment_.show(shown_);
    }
  }
  if (!due_) due_ = std::chrono::steady_clock::now() + kSoonest;
  task.done(std::move(task.status));
}

Status Writer::run_group(Group& group) {
  const bool alone = group.size() == 1 && !txn_ && !shown_;  // nothing to protect: spare the nested
  KVFS_TRY(open());
  if (alone) {
    Task& task = group.front();
    task.status = call(task.body, *txn_);
    if (task.status) return commit();
    txn_.reset();
    return {};
  }
  for (Task& task : group) task.status = run_task(task, nullptr);
  return commit();
}

Status Writer::commit() {
  const Status status = txn_->commit();
  txn_.reset();
  due_.reset();
  if (status) {
    if (shown_) environment_.show(nullptr);
    shown_ = nullptr;
  } else if (shown_) {
    KVFS_WARN("store: {}; it is tried again", status.error().message());
    due_ = std::chrono::steady_clock::now();
  }
  return status;
}

}  // namespace kvfs::store
