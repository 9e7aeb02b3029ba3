// Jobs: feed, ask, continue, step, prune, cancel and their list.
#include <charconv>

#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>

#include "codec/base/log.h"
#include "daemon/http/api.h"
#include "daemon/http/arguments.h"
#include "daemon/http/completion.h"
#include "daemon/http/present.h"
#include "engine/sched/verbs.h"

namespace kvfs::daemon::http {
namespace {

namespace json = boost::json;
using store::JobKind;

constexpr std::int64_t kMostReplies = 256;
constexpr std::int64_t kMostSteps = 1 << 24;

struct Order {
  std::vector<sched::Submission> submissions;
  bool progress = false;
  bool watch = false;
  bool wait = true;
};

// Reply i of n gets a name and a seed of its own; without a seed the scheduler draws one each.
Status multiply(Services& services, std::int64_t n, std::vector<sched::Submission>& submissions) {
  KVFS_ASSIGN(const store::StateRecord record, services.store.state(submissions[0].state));
  const auto given = submissions[0].overrides.find("seed");
  const auto kept = record.params.find("seed");
  std::string seed;
  if (kept != record.params.end()) seed = kept->second;
  if (given != submissions[0].overrides.end()) seed = given->second;
  std::uint64_t first = 0;
  std::from_chars(seed.data(), seed.data() + seed.size(), first);
  submissions.resize(static_cast<std::size_t>(n), submissions[0]);
  for (std::size_t i = 0; i < submissions.size(); ++i) {
    if (!seed.empty()) submissions[i].overrides["seed"] = std::to_string(first + i);
    if (i > 0 && !submissions[i].name.empty()) submissions[i].name += "-" + std::to_string(i + 1);
  }
  return {};
}

Result<Order> read_order(Services& services, const Call& call, JobKind kind) {
  Order order;
  sched::Submission submission;
  submission.kind = kind;
  KVFS_ASSIGN(submission.state, sched::resolve(services.store, call.captures.at(0)));
  KVFS_ASSIGN(const json::object body, call.json());
  const bool prune = kind == JobKind::kPrune;
  if (prune) {
    KVFS_TRY(only_fields(body, {"policy", "name", "progress", "wait"}));
  } else {
    KVFS_TRY(only_fields(
        body, {"prompt", "messages", "params", "name", "n", "progress", "watch", "wait"}));
  }
  KVFS_ASSIGN(submission.prompt, text_field(body, prune ? "policy" : "prompt"));
  KVFS_ASSIGN(submission.name, text_field(body, "name"));
  KVFS_ASSIGN(submission.overrides, params_field(body));
  if (const json::value* messages = body.if_contains("messages")) {
    if (!submission.prompt.empty()) {
      return fail(ErrorCode::kInvalid, "field 'messages'", "there is a prompt as well",
                  "send one of the two");
    }
    submission.prompt = json::serialize(*messages);
    submission.overrides["format"] = "messages";
  }
  KVFS_ASSIGN(order.progress, truth_field(body, "progress", false));
  KVFS_ASSIGN(order.watch, truth_field(body, "watch", false));
  KVFS_ASSIGN(order.wait, truth_field(body, "wait", true));
  const std::int64_t most = kind == JobKind::kStep  ? kMostSteps
                            : kind == JobKind::kAsk ? kMostReplies
                                                    : 1;
  KVFS_ASSIGN(const std::int64_t n, number_field(body, "n", 1, 1, most));
  if (kind == JobKind::kStep) submission.steps = static_cast<std::int32_t>(n);
  order.submissions.push_back(std::move(submission));
  if (kind == JobKind::kAsk && n > 1) KVFS_TRY(multiply(services, n, order.submissions));
  return order;
}

Result<Answer> started(Services& services, const Order& order, const std::vector<JobId>& ids) {
  const StateId state = order.submissions[0].state;
  std::vector<std::string> names;
  for (const JobId id : ids) {
    KVFS_ASSIGN(const store::JobRecord record, services.store.job(id));
    names.push_back(record.name);
  }
  if (!order.wait) {
    json::array jobs;
    for (const std::string& name : names) jobs.emplace_back(name);
    return json_answer({{"jobs", std::move(jobs)}}, 202);
  }
  return Answer{.content_type = "application/x-ndjson",
                .kind = Answer::Body::kJobs,
                .follow = Follow{.state = state,
                                 .kind = order.submissions[0].kind,
                                 .jobs = std::move(names),
                                 .progress = order.progress,
                                 .watch = order.watch}};
}

void cancel_all(Services& services, StateId state, const std::vector<JobId>& ids) {
  for (const JobId id : ids) {
    const auto record = services.store.job(id);
    if (!record) continue;
    const Status canceled = services.scheduler.cancel(state, record->name);
    if (!canceled) KVFS_DEBUG("{}", canceled.error().message());  // it ended meanwhile
  }
}

Answering run_job(Services& services, const Call& call, JobKind kind) {
  const Result<Order> order = read_order(services, call, kind);
  if (!order) co_return fail(order.error());
  std::vector<JobId> ids;
  for (const sched::Submission& submission : order->submissions) {
    const Result<JobId> id = co_await completion<Result<JobId>>(
        [&](auto done) { services.scheduler.submit_async(submission, std::move(done)); });
    if (!id) {
      cancel_all(services, submission.state, ids);  // all of the replies, or none
      co_return fail(id.error());
    }
    ids.push_back(*id);
  }
  co_return started(services, *order, ids);
}

Result<Answer> cancel_job(Services& services, const Call& call) {
  KVFS_ASSIGN(const StateId state, sched::resolve(services.store, call.captures.at(0)));
  KVFS_ASSIGN(const json::object body, call.json());
  KVFS_TRY(only_fields(body, {"job"}));
  KVFS_ASSIGN(const std::string job, text_field(body, "job"));
  KVFS_TRY(services.scheduler.cancel(state, job));
  return json_answer({{"canceled", job}});
}

Result<Answer> list_jobs(Services& services, const Call& call) {
  KVFS_ASSIGN(const StateId state, sched::resolve(services.store, call.captures.at(0)));
  json::array jobs;
  for (const sched::JobView& job : services.scheduler.jobs(state)) jobs.push_back(job_json(job));
  return json_answer({{"jobs", std::move(jobs)}});
}

}  // namespace

Answering post_feed(Services& services, Call call) {
  co_return co_await run_job(services, call, JobKind::kFeed);
}
Answering post_ask(Services& services, Call call) {
  co_return co_await run_job(services, call, JobKind::kAsk);
}
Answering post_continue(Services& services, Call call) {
  co_return co_await run_job(services, call, JobKind::kContinue);
}
Answering post_step(Services& services, Call call) {
  co_return co_await run_job(services, call, JobKind::kStep);
}
Answering post_prune(Services& services, Call call) {
  co_return co_await run_job(services, call, JobKind::kPrune);
}
Answering post_cancel(Services& services, Call call) { co_return cancel_job(services, call); }
Answering get_jobs(Services& services, Call call) { co_return list_jobs(services, call); }

}  // namespace kvfs::daemon::http
