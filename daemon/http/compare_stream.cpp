#include "daemon/http/compare_stream.h"

#include <chrono>
#include <utility>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>

#include "daemon/http/errors.h"

namespace kvfs::daemon::http {
namespace {

namespace asio = boost::asio;
namespace json = boost::json;

constexpr auto kRestTime = std::chrono::seconds(30);

template <class Numbers>
json::array numbers(const Numbers& values) {
  json::array out;
  for (const auto value : values) out.emplace_back(value);
  return out;
}

json::object turn_json(const sched::ComparisonTurn& turn) {
  json::array methods;
  for (const std::string& words : turn.methods) methods.emplace_back(words);
  return {{"index", turn.index},
          {"state_tokens", turn.state_tokens},
          {"prompt_tokens", turn.prompt_tokens},
          {"methods", std::move(methods)},
          {"prunes", turn.prunes_before ? "before" : "after"},
          {"model", turn.model},
          {"kernel_class", turn.kernel_class},
          {"restore_seconds", turn.restore_seconds}};
}

json::object result_json(const sched::MethodResult& result) {
  json::object out{{"turn", result.turn}, {"method", result.method}, {"words", result.words}};
  if (result.error) {
    out["error"] = error_json(*result.error).at("error");
    return out;
  }
  out["text"] = result.text;
  out["tokens"] = result.tokens;
  out["finish"] = result.finish;
  out["seconds"] = json::object{{"prune", result.prune_seconds},
                                {"prefill", result.prefill_seconds},
                                {"generate", result.generate_seconds}};
  out["tokens_per_second"] = result.tokens_per_second;
  out["read_again_tokens"] = result.read_again_tokens;
  out["refreshes"] = result.refreshes;
  out["kv_bytes"] = result.kv_bytes;
  out["retention"] = result.retention;
  out["lengths"] = numbers(result.lengths);
  if (!result.budgets.empty()) out["budgets"] = numbers(result.budgets);
  if (result.window) out["window"] = *result.window;
  if (result.refresh) out["refresh"] = *result.refresh;
  if (result.start) out["start"] = *result.start;
  if (result.differs) {
    out["differs"] = json::object{{"token", result.differs->token},
                                  {"full", result.differs->full},
                                  {"own", result.differs->own}};
  }
  out["kl"] = numbers(result.kl);
  out["mean_kl"] = result.mean_kl;
  out["perplexity"] = result.perplexity;
  return out;
}

struct AsJson {
  json::object operator()(const sched::ComparisonTurn& turn) const {
    return {{"turn", turn_json(turn)}};
  }
  json::object operator()(const sched::ComparisonProgress& progress) const {
    return {{"progress", json::object{{"doing", progress.doing},
                                      {"method", progress.words},
                                      {"done", progress.done},
                                      {"of", progress.of}}}};
  }
  json::object operator()(const sched::MethodResult& result) const {
    return {{"result", result_json(result)}};
  }
  json::object operator()(const sched::ComparisonRefused& refused) const {
    return {{"refused", error_json(refused.error).at("error")}};
  }
  json::object operator()(const sched::ComparisonTurnOver& over) const {
    return {{"turn_over", json::object{{"index", over.index}}}};
  }
  json::object operator()(const sched::ComparisonOver& over) const {
    return over.error ? error_json(*over.error) : json::object{{"done", json::object{}}};
  }
};

}  // namespace

ComparisonFeed::~ComparisonFeed() {
  if (link_) link_->leave();
}

// The engine may have told something already: the name comes first.
void ComparisonFeed::begun(const sched::Scheduler::Comparison& comparison) {
  const std::lock_guard lock(mutex_);
  link_ = comparison.link;
  begun_ = true;
  lines_ = json::serialize(json::object{{"comparison", comparison.name}}) + "\n" + lines_;
}

void ComparisonFeed::tell(const sched::ComparisonEvent& event) {
  if (!progress_ && std::holds_alternative<sched::ComparisonProgress>(event)) return;
  add(json::serialize(std::visit(AsJson{}, event)),
      std::holds_alternative<sched::ComparisonOver>(event));
}

void ComparisonFeed::add(const std::string& line, bool last) {
  const std::lock_guard lock(mutex_);
  lines_ += line + "\n";
  last_ = last_ || last;
  if (bell_) ring(bell_);
}

void ComparisonFeed::attach(const SharedBell& bell) {
  const std::lock_guard lock(mutex_);
  bell_ = bell;
}

std::string ComparisonFeed::take(bool& last) {
  const std::lock_guard lock(mutex_);
  if (!begun_) return {};
  last = last_;
  return std::exchange(lines_, {});
}

asio::awaitable<void> stream_comparison(Stream& stream, std::shared_ptr<ComparisonFeed> feed,
                                        unsigned version) {
  const auto bell = std::make_shared<Bell>(stream.get_executor());
  feed->attach(bell);
  const bool headed = co_await begin_chunks(stream, version);
  if (!headed) co_return;
  watch_client(stream, bell);
  bool last = false;
  while (!bell->gone) {
    const std::string text = feed->take(last);
    if (!text.empty()) {
      const bool sent = co_await send_chunk(stream, text);
      if (!sent) co_return;
    }
    if (last) break;
    if (!text.empty() || bell->gone) continue;
    // What is told since is posted, so it cannot ring before this wait has begun.
    bell->timer.expires_after(kRestTime);
    const auto [woken] = co_await bell->timer.async_wait(asio::as_tuple(asio::use_awaitable));
    static_cast<void>(woken);
  }
  if (bell->gone) co_return;
  co_await send_chunk(stream, {});
  boost::system::error_code ignored;
  stream.socket().shutdown(asio::socket_base::shutdown_send, ignored);
}

}  // namespace kvfs::daemon::http
