#include "engine/sched/commit.h"

#include <chrono>
#include <utility>

#include "codec/base/log.h"
#include "engine/sched/logprobs.h"
#include "engine/store/write_transaction.h"

namespace kvfs::sched {
namespace {

constexpr std::size_t kMaxBlocks = 8;  // of 256 tokens: 47 MB for SmolLM2-135M

std::int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

std::string text_of(const Reply& reply) {
  std::string text(static_cast<std::size_t>(reply.size()), '\0');
  const auto got = reply.read(0, {reinterpret_cast<std::uint8_t*>(text.data()), text.size()});
  text.resize(got.value_or(0));
  return text;
}

void fail_record(store::JobRecord& record, const Error& error) {
  record.status = store::JobStatus::kFailed;
  record.error = error.message();
}

}  // namespace

// Another submission may have replaced it meanwhile.
Status if_there(Status removed) {
  if (!removed && removed.error().code == ErrorCode::kNotFound) return {};
  return removed;
}

Status remove_reply(store::WriteTransaction& tx, StateId state, const std::string& job) {
  KVFS_TRY(if_there(tx.remove_file(state, store::FileArea::kReply, job)));
  return if_there(tx.remove_file(state, store::FileArea::kLogprobs, job));
}

void Committer::start(Hooks hooks) {
  hooks_ = std::move(hooks);
  thread_ = std::thread([this] { loop(); });
}

void Committer::stop() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
  const std::lock_guard lock(mutex_);
  queue_.clear();
}

bool Committer::has_room() const {
  const std::lock_guard lock(mutex_);
  return blocks_queued_ < kMaxBlocks;
}

void Committer::add(Block block) {
  {
    const std::lock_guard lock(mutex_);
    if (stop_) return;
    ++blocks_queued_;
    queue_.emplace_back(std::move(block));
  }
  wake_.notify_one();
}

void Committer::end(End end) {
  {
    const std::lock_guard lock(mutex_);
    if (stop_) return;
    queue_.emplace_back(std::move(end));
  }
  wake_.notify_one();
}

std::optional<Error> Committer::failure(JobTicket job) const {
  const std::lock_guard lock(mutex_);
  const auto it = stored_.find(job.value);
  return it == stored_.end() ? std::nullopt : it->second.error;
}

void Committer::loop() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return stop_ || !queue_.empty(); });
    if (stop_) return;
    auto task = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    if (auto* block = std::get_if<Block>(&task)) {
      store_block(*block);
    } else {
      finish(std::get<End>(task));
    }
    lock.lock();
  }
}

Result<store::BlockPin> Committer::add_to_store(Block& block) {
  if (auto* known = std::get_if<store::BlockPin>(&block.block)) return std::move(*known);
  if (failure(block.job)) return store::BlockPin{};
  auto& made = std::get<store::NewBlock>(block.block);
  KVFS_ASSIGN(made.pieces, block.kv->take());
  block.kv.reset();
  return store_.add_block(made, block.dtype, block.codec);
}

void Committer::store_block(Block& block) {
  auto pin = add_to_store(block);
  {
    const std::lock_guard lock(mutex_);
    --blocks_queued_;
    Stored& stored = stored_[block.job.value];
    if (!pin) {
      stored.error = pin.error();
    } else if (pin->id()) {
      stored.blocks.push_back(*std::move(pin));
    }
  }
  hooks_.settled(std::nullopt, {});
}

Status Committer::commit(End& end, const Stored& stored,
                         const std::vector<std::pair<JobId, std::string>>& dropped,
                         VersionId& version) {
  const auto& record = end.record;
  store::FileRecord reply;
  reply.changed_ns = record.finished_ns;
  store::FileRecord logprobs = reply;
  if (!end.error) {
    reply.content = text_of(*end.reply);
    logprobs.content = encode_logprobs(end.reply->logprobs(0));
  }
  return store_.write([&](store::WriteTransaction& tx) -> Status {
    const auto state = tx.state(record.state);
    if (!state) return tx.update_job(end.id, record);  // removed meanwhile: nothing is left to say
    if (end.version) {
      if (state->version != record.base) {
        return fail(ErrorCode::kBusy, "job " + record.name, "the state was replaced while it ran",
                    "submit it again");
      }
      auto made = *end.version;
      for (const store::BlockPin& pin : stored.blocks) made.blocks.push_back(pin.id());
      KVFS_ASSIGN(version, tx.add_version(made));
      KVFS_TRY(tx.set_version(record.state, version));
      auto advanced = *state;
      advanced.advanced_ns = record.finished_ns;
      KVFS_TRY(tx.update_state(record.state, advanced));
    }
    KVFS_TRY(tx.update_job(end.id, record));
    for (const auto& [id, name] : dropped) {
      KVFS_TRY(if_there(tx.remove_job(id)));
      KVFS_TRY(remove_reply(tx, record.state, name));
    }
    if (!end.error) {
      reply.uid = logprobs.uid = state->uid;
      reply.gid = logprobs.gid = state->gid;
      KVFS_TRY(tx.put_file(record.state, store::FileArea::kReply, record.name, reply));
      if (!logprobs.content.empty()) {
        KVFS_TRY(tx.put_file(record.state, store::FileArea::kLogprobs, record.name, logprobs));
      }
    }
    return {};
  });
}

void Committer::finish(End& end) {
  Stored stored;
  {
    const std::lock_guard lock(mutex_);
    if (const auto it = stored_.find(end.job.value); it != stored_.end()) {
      stored = std::move(it->second);
      stored_.erase(it);
    }
  }
  const auto refuse = [&](const Error& error) {
    end.error = error;
    end.version.reset();
    fail_record(end.record, error);
  };
  end.record.finished_ns = now_ns();
  end.record.times.save += static_cast<std::uint32_t>(
      std::chrono::round<std::chrono::milliseconds>(std::chrono::steady_clock::now() - end.since)
          .count());
  if (stored.error && end.version) refuse(*stored.error);
  const auto dropped = table_.surplus(end.record.state);
  VersionId version;
  if (auto done = commit(end, stored, dropped, version); !done) {
    refuse(done.error());
    version = {};
    done = commit(end, {}, dropped, version);
    if (!done) KVFS_ERROR("job {}: {}", end.record.name, done.error().message());
  }
  stored.blocks.clear();  // the version keeps them now

  hooks_.settled(end.job, version);
  if (version) hooks_.listener({Event::Kind::kAdvanced, end.record.state, end.record.name});
  end.reply->finish(end.error);
  table_.finish(end.job, end.record, dropped);
  hooks_.listener({Event::Kind::kJob, end.record.state, end.record.name});
  hooks_.settled(std::nullopt, {});
  if (end.done) end.done();
}

}  // namespace kvfs::sched
