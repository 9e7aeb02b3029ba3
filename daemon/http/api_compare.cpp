// Comparing methods of pruning on a state: the stream, and a chat's turns.
#include <utility>

#include "daemon/http/api.h"
#include "daemon/http/arguments.h"
#include "daemon/http/compare_stream.h"
#include "engine/sched/verbs.h"

namespace kvfs::daemon::http {
namespace {

namespace json = boost::json;

Result<sched::PruneWhen> when_field(const json::object& body) {
  KVFS_ASSIGN(const std::string word, text_field(body, "when", "auto"));
  if (word == "auto") return sched::PruneWhen::kAuto;
  if (word == "before") return sched::PruneWhen::kBefore;
  if (word == "after") return sched::PruneWhen::kAfter;
  return fail(ErrorCode::kInvalid, "field 'when'", "not auto, before or after",
              "say whether to prune before or after the prompt is read");
}

Result<Answer> begin(Services& services, const Call& call) {
  sched::ComparisonRequest request;
  KVFS_ASSIGN(request.state, sched::resolve(services.store, call.captures.at(0)));
  KVFS_ASSIGN(const json::object body, call.json());
  KVFS_TRY(only_fields(body, {"prompt", "chat", "methods", "when", "params", "progress"}));
  KVFS_ASSIGN(const bool chat, truth_field(body, "chat", false));
  KVFS_ASSIGN(const bool progress, truth_field(body, "progress", false));
  KVFS_ASSIGN(const std::string prompt, text_field(body, "prompt"));
  KVFS_ASSIGN(request.methods, texts_field(body, "methods"));
  KVFS_ASSIGN(request.overrides, params_field(body));
  KVFS_ASSIGN(request.when, when_field(body));
  if (!chat || !prompt.empty()) request.prompt = prompt;
  const auto feed = std::make_shared<ComparisonFeed>(progress);  // with the callback, weakly
  KVFS_ASSIGN(const auto comparison,
              services.scheduler.compare(
                  request, [weak = std::weak_ptr(feed)](const sched::ComparisonEvent& event) {
                    if (const auto there = weak.lock()) there->tell(event);
                  }));
  feed->begun(comparison);
  if (request.prompt) KVFS_TRY(comparison.link->say(prompt));
  if (!chat) comparison.link->end();
  return Answer{.content_type = "application/x-ndjson",
                .kind = Answer::Body::kComparison,
                .comparison = feed};
}

Result<Answer> turn(Services& services, const Call& call) {
  KVFS_ASSIGN(const StateId state, sched::resolve(services.store, call.captures.at(0)));
  KVFS_ASSIGN(const json::object body, call.json());
  KVFS_TRY(only_fields(body, {"prompt", "end"}));
  KVFS_ASSIGN(const std::string prompt, text_field(body, "prompt"));
  KVFS_ASSIGN(const bool end, truth_field(body, "end", false));
  KVFS_ASSIGN(const auto link, services.scheduler.comparison(state, call.captures.at(1)));
  if (!end || !prompt.empty()) KVFS_TRY(link->say(prompt));
  if (end) link->end();
  return json_answer({{"comparison", call.captures.at(1)}}, 202);
}

}  // namespace

Answering post_compare(Services& services, Call call) { co_return begin(services, call); }
Answering post_compare_turn(Services& services, Call call) { co_return turn(services, call); }

}  // namespace kvfs::daemon::http
