// A comparison (engine/sched/compare.h) as a chunked stream of JSON lines, sent as they come:
//
//   {"comparison":"compare-1"}          first: under this name a chat's turns are said
//   {"turn":{"index","state_tokens","prompt_tokens","methods":[words],"prunes":"before"|"after",
//     "model","kernel_class","restore_seconds"}}
//   {"progress":{"doing","method","done","of"}}          with "progress": true
//   {"result":{"turn","method","words","text","tokens","finish","seconds":{"prune","prefill",
//     "generate"},"tokens_per_second","read_again_tokens","refreshes","kv_bytes","retention",
//     "lengths":[by layer],"budgets"?:[by layer],"window"?,"refresh"?,"start"?,
//     "differs"?:{"token","full","own"},"kl":[nats, by token of the full answer],"mean_kl",
//     "perplexity"}}                    one a method, the full one first; or
//     {…,"words","error":{…}}
//   {"refused":{code, what, why, way_out}}               a turn; the chat goes on
//   {"turn_over":{"index"}}
//   {"done":{}} or {"error":{code, what, why, way_out}}  last
//
// A client that goes away ends the comparison, of which nothing is left.
#pragma once

#include <memory>
#include <mutex>
#include <string>

#include "daemon/http/bell.h"
#include "daemon/http/connection.h"
#include "engine/sched/scheduler.h"

namespace kvfs::daemon::http {

// Lines on their way from the engine to the client. Owned by the answer and then its stream; the
// engine holds it weakly. Any thread. At its end the comparison is left.
class ComparisonFeed {
 public:
  explicit ComparisonFeed(bool progress) : progress_(progress) {}
  ~ComparisonFeed();
  ComparisonFeed(const ComparisonFeed&) = delete;
  ComparisonFeed& operator=(const ComparisonFeed&) = delete;

  void begun(const sched::Scheduler::Comparison& comparison);
  void tell(const sched::ComparisonEvent& event);
  void attach(const SharedBell& bell);  // to be rung at each line
  // All lines that wait; last: nothing comes after them.
  std::string take(bool& last);

 private:
  void add(const std::string& line, bool last);

  const bool progress_;
  std::mutex mutex_;  // guards everything below
  std::shared_ptr<sched::ComparisonLink> link_;
  std::string lines_;
  bool begun_ = false;
  bool last_ = false;
  SharedBell bell_;
};

boost::asio::awaitable<void> stream_comparison(Stream& stream, std::shared_ptr<ComparisonFeed> feed,
                                               unsigned version);

}  // namespace kvfs::daemon::http
