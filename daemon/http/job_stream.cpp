#include "daemon/http/job_stream.h"

#include <chrono>
#include <memory>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value_ref.hpp>

#include "codec/base/log.h"
#include "daemon/http/bell.h"
#include "daemon/http/errors.h"
#include "daemon/http/present.h"
#include "engine/text/tokenizer.h"

namespace kvfs::daemon::http {
namespace {

namespace asio = boost::asio;
namespace json = boost::json;

constexpr auto as_result = asio::as_tuple(asio::use_awaitable);
constexpr auto kProgressEvery = std::chrono::milliseconds(200);
constexpr auto kLookAgain = std::chrono::milliseconds(5);  // for `done` after the reply's end
constexpr auto kRestTime = std::chrono::seconds(30);
constexpr std::size_t kReadBytes = 16 << 10;

// Built in functions: g++ 12 cannot keep an initializer list across a co_await. Nor does it compile
// one rightly that && might skip.
json::object member(const char* name, json::value_ref value) { return {{name, value}}; }

json::object progress_json(const sched::JobView& job) {
  return {{"read", job.read_tokens},
          {"of", job.record.prompt_tokens},
          {"known", job.record.known_tokens},
          {"queued", job.record.status == store::JobStatus::kQueued}};
}

// One job's reply on its way to the client.
struct Followed {
  std::string name;
  std::shared_ptr<sched::Reply> reply;  // with the scheduler and other readers
  std::uint64_t offset = 0;
  text::Utf8Stream text;
  const text::Tokenizer* tokenizer = nullptr;  // where log probabilities are wanted
  std::size_t tokens_told = 0;
  std::uint64_t refreshes_told = 0;
  bool read_to_end = false;
  bool over = false;  // its last line was sent
};

class JobStream {
 public:
  JobStream(Stream& stream, Front& front, Follow follow)
      : stream_(stream),
        front_(front),
        follow_(std::move(follow)),
        bell_(std::make_shared<Bell>(stream.get_executor())) {}

  asio::awaitable<void> run(unsigned version);

 private:
  asio::awaitable<void> begin(unsigned version);
  asio::awaitable<void> pump(std::size_t index);
  asio::awaitable<void> tell_progress();
  asio::awaitable<void> tell_refreshes(std::size_t index);
  asio::awaitable<void> rest();
  asio::awaitable<void> line(json::object object, std::size_t index);
  asio::awaitable<void> write(std::string_view bytes);
  asio::awaitable<void> cancel_asks();
  std::optional<sched::JobView> view(const std::string& name) const;
  const text::Tokenizer* tokenizer_of(const std::string& name) const;
  json::object told(Followed& job, std::string text) const;
  bool all_over() const;
  bool settling() const;

  Stream& stream_;
  Front& front_;
  Follow follow_;
  SharedBell bell_;
  std::vector<Followed> jobs_;
  std::string last_progress_;
};

bool JobStream::all_over() const {
  return std::all_of(jobs_.begin(), jobs_.end(), [](const Followed& job) { return job.over; });
}

bool JobStream::settling() const {
  return std::any_of(jobs_.begin(), jobs_.end(),
                     [](const Followed& job) { return job.read_to_end && !job.over; });
}

std::optional<sched::JobView> JobStream::view(const std::string& name) const {
  for (sched::JobView& job : front_.services.scheduler.jobs(follow_.state)) {
    if (job.record.name == name) return std::move(job);
  }
  return std::nullopt;
}

const text::Tokenizer* JobStream::tokenizer_of(const std::string& name) const {
  const auto job = view(name);
  if (!job) return nullptr;
  const auto& params = job->record.params;
  const auto wanted = params.find("logprobs");
  const auto model = params.find("model");
  if (wanted == params.end() || wanted->second == "0" || model == params.end()) return nullptr;
  const auto card = front_.services.catalog.card(model->second);
  return card ? (*card)->tokenizer.get() : nullptr;
}

// {"text"}, with the log probabilities that go with it; empty when there is nothing to tell.
json::object JobStream::told(Followed& job, std::string text) const {
  json::object out;
  std::vector<model::Logprobs> logprobs;
  if (job.tokenizer != nullptr && job.reply) logprobs = job.reply->logprobs(job.tokens_told);
  if (text.empty() && logprobs.empty()) return out;
  out["text"] = std::move(text);
  if (!logprobs.empty()) out["logprobs"] = logprobs_json(*job.tokenizer, logprobs);
  job.tokens_told += logprobs.size();
  return out;
}

asio::awaitable<void> JobStream::write(std::string_view bytes) {
  if (bell_->gone) co_return;
  const bool sent = co_await send_chunk(stream_, bytes);
  if (!sent) bell_->gone = true;
}

asio::awaitable<void> JobStream::line(json::object object, std::size_t index) {
  if (jobs_.size() > 1) object["index"] = index;
  const std::string text = json::serialize(object) + "\n";
  co_await write(text);
}

asio::awaitable<void> JobStream::begin(unsigned version) {
  const bool begun = co_await begin_chunks(stream_, version);
  if (!begun) bell_->gone = true;
  for (std::size_t i = 0; i < follow_.jobs.size(); ++i) {
    Followed job{.name = follow_.jobs[i]};
    auto reply = front_.services.scheduler.reply(follow_.state, job.name);
    if (reply) job.reply = std::move(*reply);
    job.tokenizer = tokenizer_of(job.name);
    jobs_.push_back(std::move(job));
  }
  for (std::size_t i = 0; i < jobs_.size(); ++i) co_await line(member("job", jobs_[i].name), i);
}

// Sends what has come since, and the last line once the scheduler has published the job's end.
asio::awaitable<void> JobStream::pump(std::size_t index) {
  Followed& job = jobs_[index];
  if (follow_.watch) co_await tell_refreshes(index);
  std::string buffer(kReadBytes, '\0');
  while (!job.read_to_end && !bell_->gone) {
    if (!job.reply) {
      job.read_to_end = true;
      break;
    }
    const bool finished = job.reply->finished();
    const auto bytes = job.reply->read(
        job.offset, MutableByteSpan(reinterpret_cast<std::uint8_t*>(buffer.data()), buffer.size()));
    std::string text;
    if (!bytes || (*bytes == 0 && finished)) {
      job.read_to_end = true;
      text = job.text.finish();
    } else if (*bytes == 0) {
      break;
    } else {
      job.offset += *bytes;
      text = job.text.push(std::string_view(buffer).substr(0, *bytes));
    }
    json::object added = told(job, std::move(text));
    if (!added.empty()) co_await line(std::move(added), index);
  }
  if (!job.read_to_end || job.over) co_return;
  const auto job_view = view(job.name);
  if (job_view && (job_view->record.status == store::JobStatus::kQueued ||
                   job_view->record.status == store::JobStatus::kRunning)) {
    // Interrupted by the daemon's end, or `done` is a moment away.
    const auto error = job.reply ? job.reply->error() : std::nullopt;
    if (!error) co_return;
  }
  job.over = true;
  const auto error = job.reply ? job.reply->error() : std::nullopt;
  json::object last;
  if (error) {
    last = error_json(*error);
    if (job_view) last["job"] = job_json(*job_view);
  } else if (job_view) {
    last = member("done", job_json(*job_view));
  } else {
    last = error_json(Error{ErrorCode::kNotFound, "job " + job.name, "removed with its state", ""});
  }
  co_await line(std::move(last), index);
}

asio::awaitable<void> JobStream::tell_progress() {
  for (std::size_t i = 0; i < jobs_.size(); ++i) {
    if (jobs_[i].over || jobs_[i].offset > 0) continue;
    const auto job = view(jobs_[i].name);
    if (!job) continue;
    const json::object progress = progress_json(*job);
    const std::string text = json::serialize(progress);
    if (text == last_progress_) continue;
    last_progress_ = text;
    co_await line(member("progress", progress), i);
  }
}

// A refresh comes before the text of the step after it.
asio::awaitable<void> JobStream::tell_refreshes(std::size_t index) {
  Followed& job = jobs_[index];
  const auto refreshes =
      front_.services.scheduler.refreshes(follow_.state, job.name, job.refreshes_told);
  for (const sched::Refresh& refresh : refreshes) {
    co_await line(member("refresh", refresh_json(refresh)), index);
  }
}

// Until a reply grows, the client goes, or it is time to look again.
asio::awaitable<void> JobStream::rest() {
  const bool quick = settling();
  const bool often = follow_.progress || follow_.watch;
  bell_->timer.expires_after(quick   ? std::chrono::nanoseconds(kLookAgain)
                             : often ? std::chrono::nanoseconds(kProgressEvery)
                                     : std::chrono::nanoseconds(kRestTime));
  std::vector<std::pair<sched::Reply*, sched::Reply::Ticket>> tickets;
  bool ready = bell_->gone;
  for (Followed& job : jobs_) {
    if (job.read_to_end || ready) continue;
    const auto ticket = job.reply->wait(job.offset, [bell = bell_] { ring(bell); });
    if (ticket) {
      tickets.emplace_back(job.reply.get(), *ticket);
    } else {
      ready = true;
    }
  }
  if (!ready) {
    // A wake from another thread is posted, so it cannot come before this wait has begun.
    const auto [woken] = co_await bell_->timer.async_wait(as_result);
    static_cast<void>(woken);
  }
  for (const auto& [reply, ticket] : tickets) reply->drop(ticket);
}

asio::awaitable<void> JobStream::cancel_asks() {
  // At the daemon's end jobs stay, to be taken up again.
  if (follow_.kind != store::JobKind::kAsk || front_.closing) co_return;
  for (const Followed& job : jobs_) {
    if (job.over) continue;
    // Canceling waits for a commit: on a worker.
    co_await asio::co_spawn(
        front_.workers,
        [](sched::Scheduler& scheduler, StateId state, std::string name) -> asio::awaitable<void> {
          if (const Status status = scheduler.cancel(state, name); !status) {
            KVFS_DEBUG("{}", status.error().message());  // it ended meanwhile
          }
          co_return;
        }(front_.services.scheduler, follow_.state, job.name),
        asio::use_awaitable);
  }
}

asio::awaitable<void> JobStream::run(unsigned version) {
  co_await begin(version);
  watch_client(stream_, bell_);
  while (!bell_->gone) {
    for (std::size_t i = 0; i < jobs_.size(); ++i) co_await pump(i);
    if (all_over()) break;
    if (follow_.progress) co_await tell_progress();
    co_await rest();
  }
  if (bell_->gone) {
    co_await cancel_asks();
    co_return;
  }
  co_await send_chunk(stream_, {});
  boost::system::error_code ignored;
  stream_.socket().shutdown(asio::socket_base::shutdown_send, ignored);
}

}  // namespace

asio::awaitable<void> stream_jobs(Stream& stream, Front& front, Follow follow, unsigned version) {
  JobStream jobs(stream, front, std::move(follow));
  co_await jobs.run(version);
}

}  // namespace kvfs::daemon::http
