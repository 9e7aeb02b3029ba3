// The commit thread: blocks go to the store as they fill; a job's end goes there in one transaction
// (its row, its reply, its state's new version); then the listener hears of it, the reply is
// finished, and only then the job's status says done.
//
// Threads: every method may be called from any thread. Blocks are bounded: ask has_room() before
// copying one off the device. What is left in the queue when stop() is called is dropped: blocks
// that nothing refers to are garbage, and rows that are not finished start again.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <variant>

#include "engine/model/model.h"
#include "engine/sched/job_table.h"
#include "engine/store/store.h"

namespace kvfs::sched {

Status if_there(Status removed);  // kNotFound is fine
// What a job's reply left in the store, as far as it is there.
Status remove_reply(store::WriteTransaction& tx, StateId state, const std::string& job);

class Committer {
 public:
  struct Block {  // the job's next block, in ascending order
    JobTicket job;
    std::variant<store::NewBlock, store::BlockPin> block;  // a pin: found by prefix
    std::unique_ptr<model::KvOut> kv;                      // a new block's pieces
    DType dtype = DType::kBF16;
    chunk::CodecId codec = chunk::CodecId::kZh;
  };
  struct End {
    JobTicket job;
    JobId id;
    store::JobRecord record;                      // with its finished status and counts
    std::shared_ptr<Reply> reply;                 // shared with readers
    std::optional<Error> error;                   // the reply's
    std::optional<store::VersionRecord> version;  // blocks: the base's that stay; the job's follow
    std::function<void()> done;                   // when all is said; may be empty
    std::chrono::steady_clock::time_point since = std::chrono::steady_clock::now();
  };
  // Both are called on the commit thread. settled: blocks may have room again, or a job has ended;
  // then version is the one that came of it.
  struct Hooks {
    std::function<void(const Event&)> listener;
    std::function<void(std::optional<JobTicket>, VersionId)> settled;
  };

  Committer(store::Store& store, JobTable& table) : store_(store), table_(table) {}
  ~Committer() { stop(); }
  Committer(const Committer&) = delete;
  Committer& operator=(const Committer&) = delete;

  void start(Hooks hooks);
  void stop();  // from then on what is added is dropped too: models may go

  bool has_room() const;
  void add(Block block);
  void end(End end);
  // Why a block of the job could not be stored: the job cannot be committed any more.
  std::optional<Error> failure(JobTicket job) const;

 private:
  struct Stored {
    std::vector<store::BlockPin> blocks;
    std::optional<Error> error;
  };

  void loop();
  Result<store::BlockPin> add_to_store(Block& block);
  void store_block(Block& block);
  void finish(End& end);
  Status commit(End& end, const Stored& stored,
                const std::vector<std::pair<JobId, std::string>>& dropped, VersionId& version);

  store::Store& store_;
  JobTable& table_;
  Hooks hooks_;

  mutable std::mutex mutex_;  // guards everything down to thread_
  std::condition_variable wake_;
  std::deque<std::variant<Block, End>> queue_;
  std::size_t blocks_queued_ = 0;
  std::unordered_map<std::uint64_t, Stored> stored_;  // by ticket
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace kvfs::sched
