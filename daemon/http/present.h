// The daemon's things as JSON. Any thread; short reads of the store.
#pragma once

#include <boost/json/object.hpp>

#include "daemon/http/services.h"
#include "engine/sched/scheduler.h"
#include "engine/store/records.h"

namespace kvfs::daemon::http {

// {"name","kind","status","prompt_tokens","generated_tokens","known_tokens","prefilled_tokens",
//  "restored_tokens","recomputed_tokens","milliseconds":{"queued","restore","recompute","known",
//  "read","generate","save"},"seed","seconds","tokens_per_second"?,"finish"?,"error"?,"line"}: as
// store::JobRecord and JobTimes say.
boost::json::object job_json(const sched::JobView& job);

// A line of event_stream.h, of now.
boost::json::object change_json(const store::Change& change);
// path: of the job's state.
boost::json::object refreshed_json(const std::string& path, const sched::Refreshed& news);
// {"read"?,"step","text","before":[…],"lengths":[…],"top_budget","kv_bytes","line"}
boost::json::object refresh_json(const sched::Refresh& refresh);

// As OpenAI's chat API has it, and each token's id: {"content":[{"id","token","bytes","logprob",
// "top_logprobs":[{"id","token","bytes","logprob"}]}]}. Parts of characters are U+FFFD in "token".
boost::json::object logprobs_json(const text::Tokenizer& tokenizer,
                                  const std::vector<model::Logprobs>& logprobs);

// For lists: {"path","tokens","model"?,"origin"?,"kv_bytes","changed","advanced","children"?}
Result<boost::json::object> state_summary(Services& services, StateId id, const std::string& path);

// For one: the summary, ids, owner, mode, params, jobs, and what state.json says under "state".
Result<boost::json::object> state_facts(Services& services, StateId id);

// `key value` lines as an object; numbers become numbers.
boost::json::object status_json(std::string_view lines);

}  // namespace kvfs::daemon::http
