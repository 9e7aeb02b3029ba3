#include "engine/store/writer.h"

#include <exception>
#include <future>

namespace kvfs::store {
namespace {

constexpr std::size_t kGroupTasks = 64;
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

void Writer::submit(Body body, Done done, std::size_t weight) {
  {
    std::lock_guard lock(mutex_);
    queue_.push_back({std::move(body), std::move(done), weight, {}});
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
  for (;;) {
    std::deque<Task> group = take_group();
    if (group.empty()) return;
    const Status committed = run_group(group);
    for (Task& task : group) task.done(task.status && !committed ? committed : task.status);
  }
}

// Waits for work; empty only when the writer is to stop and nothing is left.
std::deque<Writer::Task> Writer::take_group() {
  std::unique_lock lock(mutex_);
  wake_.wait(lock, [&] { return stop_ || !queue_.empty(); });
  std::deque<Task> group;
  std::size_t weight = 0;
  while (!queue_.empty() && group.size() < kGroupTasks) {
    weight += queue_.front().weight;
    if (!group.empty() && weight > kGroupBytes) break;
    group.push_back(std::move(queue_.front()));
    queue_.pop_front();
  }
  return group;
}

Status Writer::run_group(std::deque<Task>& group) {
  KVFS_ASSIGN(Txn txn, environment_.begin_write());
  if (group.size() == 1) {  // nothing to protect: spare the nested transaction
    Task& task = group.front();
    task.status = call(task.body, txn);
    if (!task.status) return {};
    return txn.commit();
  }
  for (Task& task : group) {
    Result<Txn> nested = txn.begin_nested();
    task.status = nested ? call(task.body, *nested) : Status(fail(nested.error()));
    if (task.status) task.status = nested->commit();
  }
  return txn.commit();
}

}  // namespace kvfs::store
