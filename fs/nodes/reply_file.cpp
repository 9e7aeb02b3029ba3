#include "fs/nodes/reply_file.h"

#include <algorithm>
#include <utility>

#include "fs/modes.h"
#include "fs/nodes/text_handle.h"

namespace kvfs::fs {
namespace {

using ReplyPtr = std::shared_ptr<sched::Reply>;  // shared with the scheduler, see reply.h
using AnswerPtr = std::shared_ptr<ReadAnswer>;   // shared by whoever may answer it

// True when it was answered.
bool answer_now(const sched::Reply& reply, std::uint64_t offset, std::size_t size, bool at_end_too,
                const AnswerPtr& answer) {
  const bool finished = reply.finished();  // before the read: what it says of the end holds then
  Bytes bytes(size);
  const Result<std::size_t> got = reply.read(offset, bytes);
  if (!got) {
    answer->fail({ErrorCode::kIo, "reading the reply", got.error().message(), {}});
    return true;
  }
  if (*got == 0 && !finished && !at_end_too) return false;
  answer->data(ByteSpan(bytes).first(*got));
  return true;
}

void answer_when_there(const ReplyPtr& reply, std::uint64_t offset, std::size_t size,
                       const AnswerPtr& answer) {
  while (!answer->answered()) {
    if (answer_now(*reply, offset, size, false, answer)) return;
    const auto ticket = reply->wait(offset, [reply = std::weak_ptr(reply), offset, size, answer] {
      if (const ReplyPtr there = reply.lock()) answer_when_there(there, offset, size, answer);
    });
    if (ticket) {
      // Interrupted between park() and here: nobody else knows the ticket.
      answer->on_drop([reply = std::weak_ptr(reply), ticket = *ticket] {
        if (const ReplyPtr there = reply.lock()) there->drop(ticket);
      });
      return;
    }
  }
}

class ReplyHandle : public Handle {
 public:
  ReplyHandle(ReplyPtr reply, bool noblock) : reply_(std::move(reply)), noblock_(noblock) {}

  PageCache page_cache() const override { return PageCache::kNone; }
  bool allows_copy_file_range() const override { return false; }

  void read(std::uint64_t offset, std::size_t size, AnswerPtr answer) override {
    if (answer_now(*reply_, offset, size, noblock_, answer)) return;
    if (answer->park()) answer_when_there(reply_, offset, size, answer);
  }

 private:
  const ReplyPtr reply_;
  const bool noblock_;
};

// A copy onto a state that has had a job of that name: its reply is what it is.
class SwallowingHandle : public Handle {
 public:
  PageCache page_cache() const override { return PageCache::kNone; }
  bool allows_copy_file_range() const override { return false; }
  void read(std::uint64_t /*offset*/, std::size_t /*size*/, AnswerPtr answer) override {
    answer->data({});
  }
  void write(std::uint64_t /*offset*/, ByteSpan bytes, Answer<std::size_t> done) override {
    done(bytes.size());
  }
  Status truncate(std::uint64_t /*size*/) override { return {}; }
};

}  // namespace

ReplyFile::ReplyFile(Context& context, Ino ino, StateId state, std::string job)
    : File(ino), context_(context), state_(state), job_(std::move(job)) {}

Result<Attributes> ReplyFile::attributes() {
  KVFS_ASSIGN(const store::StateRecord record, context_.store.state(state_));
  KVFS_ASSIGN(const ReplyPtr reply, context_.scheduler.reply(state_, job_));
  Attributes out{.mode = file_mode(record, kReadWrite),
                 .uid = record.uid,
                 .gid = record.gid,
                 .size = reply->size(),
                 .changed_ns = now_ns()};
  if (!reply->finished()) return out;
  for (const auto& job : context_.scheduler.jobs(state_)) {
    if (job.record.name != job_) continue;
    if (job.record.finished_ns != 0) out.changed_ns = job.record.finished_ns;
    break;
  }
  return out;
}

// cp -a of a state onto another sets these: accepted, and the daemon's own stay.
void ReplyFile::change(const Changes& /*changes*/, Done done) { done({}); }

Result<std::unique_ptr<Handle>> ReplyFile::open(int flags) {
  if (!refuse_writing(flags)) return std::make_unique<SwallowingHandle>();
  KVFS_ASSIGN(ReplyPtr reply, context_.scheduler.reply(state_, job_));
  return std::make_unique<ReplyHandle>(std::move(reply), context_.behaviour.noblock);
}

}  // namespace kvfs::fs
