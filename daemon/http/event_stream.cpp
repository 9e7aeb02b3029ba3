#include "daemon/http/event_stream.h"

#include <chrono>
#include <deque>
#include <memory>
#include <mutex>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/json/serialize.hpp>

#include "daemon/http/bell.h"
#include "daemon/http/present.h"
#include "engine/sched/verbs.h"

namespace kvfs::daemon::http {
namespace {

namespace asio = boost::asio;
namespace json = boost::json;

constexpr std::size_t kWaiting = 4096;  // lines for a client that does not take them
constexpr auto kRestTime = std::chrono::seconds(30);

// Lines on their way from the store's writer thread to the client.
class Lines {
 public:
  void add(std::string line) {
    const std::lock_guard lock(mutex_);
    if (lines_.size() >= kWaiting) {
      ++lost_;
    } else {
      lines_.push_back(std::move(line));
    }
  }
  std::string take() {  // all that wait
    const std::lock_guard lock(mutex_);
    std::string out;
    for (const std::string& line : lines_) out += line + "\n";
    lines_.clear();
    if (lost_ != 0) {
      out += json::serialize(json::object{{"event", "lost"}, {"count", lost_}}) + "\n";
      lost_ = 0;
    }
    return out;
  }

 private:
  std::mutex mutex_;  // guards everything below
  std::deque<std::string> lines_;
  std::uint64_t lost_ = 0;
};

// The state itself, what is below it, and its snapshots.
bool is_under(std::string_view path, std::string_view top) {
  if (top.empty() || path == top) return true;
  return path.size() > top.size() && path.starts_with(top) &&
         (path[top.size()] == '/' || path[top.size()] == '@');
}

// From here on until its end the source tells it: the store, or the scheduler.
template <class Source>
class Watch {
 public:
  template <class Watcher>
  Watch(Source& source, Watcher watcher) : source_(source), id_(source.watch(std::move(watcher))) {}
  ~Watch() { source_.unwatch(id_); }
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

 private:
  Source& source_;
  const std::uint64_t id_;
};

}  // namespace

asio::awaitable<void> stream_events(Stream& stream, Front& front, std::string under,
                                    unsigned version) {
  const auto bell = std::make_shared<Bell>(stream.get_executor());
  const auto lines = std::make_shared<Lines>();
  store::Store& store = front.services.store;
  const Watch changes(store, [bell, lines, under](const store::Change& change) {
    if (change.kind == store::Change::Kind::kStaged) return;
    if (!is_under(change.path, under) && !is_under(change.before, under)) return;
    lines->add(json::serialize(change_json(change)));
    ring(bell);
  });
  const Watch refreshes(front.services.scheduler,
                        [bell, lines, under, &store](const sched::Refreshed& news) {
                          const auto path = sched::path_of(store, news.state);
                          if (!path || !is_under(*path, under)) return;  // removed meanwhile
                          lines->add(json::serialize(refreshed_json(*path, news)));
                          ring(bell);
                        });
  const bool begun = co_await begin_chunks(stream, version);
  if (!begun) co_return;
  watch_client(stream, bell);
  std::string text = "{\"event\":\"ready\"}\n";
  while (!bell->gone) {
    if (!text.empty()) {
      const bool sent = co_await send_chunk(stream, text);
      if (!sent) co_return;
    }
    text = lines->take();
    if (!text.empty() || bell->gone) continue;
    // What was told since is posted, so it cannot ring before this wait has begun.
    bell->timer.expires_after(kRestTime);
    const auto [woken] = co_await bell->timer.async_wait(asio::as_tuple(asio::use_awaitable));
    static_cast<void>(woken);
    text = lines->take();
  }
}

}  // namespace kvfs::daemon::http
