#include "daemon/http/present.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <ctime>

#include <boost/json/array.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/value_from.hpp>

#include "engine/sched/verbs.h"
#include "engine/store/views.h"

namespace kvfs::daemon::http {
namespace {

namespace json = boost::json;

// "2025-01-31T12:00:00Z"; null for a state that never advanced.
json::value time_json(std::int64_t nanoseconds) {
  if (nanoseconds == 0) return nullptr;
  const auto seconds = static_cast<std::time_t>(nanoseconds / 1'000'000'000);
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char text[32];
  const std::size_t length = std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return json::string(text, length);
}

Result<json::object> state_document(store::Store& store, const store::VersionRecord& version) {
  KVFS_ASSIGN(const auto view, store::state_json_view(store, version));
  std::string text(view->size(), '\0');
  MutableByteSpan out(reinterpret_cast<std::uint8_t*>(text.data()), text.size());
  KVFS_ASSIGN(const std::size_t length, view->read(0, out));
  text.resize(length);
  boost::system::error_code error;
  json::value value = json::parse(text, error);
  if (error || !value.is_object()) {
    return fail(ErrorCode::kInternal, "state.json", "not a JSON object: " + error.message());
  }
  return std::move(value.as_object());
}

json::object params_json(const std::map<std::string, std::string>& set) {
  json::object params;
  for (const sched::ParamSpec& spec : sched::param_table()) {
    const auto found = set.find(std::string(spec.name));
    params[spec.name] = found != set.end() ? found->second : std::string(spec.default_value);
  }
  return params;
}

constexpr float kLeastLogprob = -9999.0F;  // JSON has no infinity; OpenAI's figure for "never"

json::object token_json(const text::Tokenizer& tokenizer, const model::TokenLogprob& token) {
  const std::string_view spelled = tokenizer.bytes_of(token.id);
  text::Utf8Stream shown;
  json::string text(shown.push(spelled));
  text += shown.finish();
  json::array bytes;
  for (const char byte : spelled) bytes.emplace_back(static_cast<unsigned char>(byte));
  return {{"id", token.id},
          {"token", std::move(text)},
          {"bytes", std::move(bytes)},
          {"logprob", std::max(token.logprob, kLeastLogprob)}};
}

json::object times_json(const store::JobTimes& times) {
  return {{"queued", times.queued}, {"restore", times.restore}, {"recompute", times.recompute},
          {"known", times.known},   {"read", times.read},       {"generate", times.generate},
          {"save", times.save}};
}

json::array refreshes_json(const std::vector<sched::Refresh>& refreshes) {
  json::array out;
  for (const sched::Refresh& refresh : refreshes) out.push_back(refresh_json(refresh));
  return out;
}

json::value now_json() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return time_json(std::chrono::nanoseconds(now).count());
}

}  // namespace

json::object change_json(const store::Change& change) {
  using Kind = store::Change::Kind;
  json::object out{
      {"at", now_json()}, {"event", store::name_of(change.kind)}, {"state", change.path}};
  if (!change.file.empty()) out["file"] = change.file;
  if (!change.before.empty()) out["before"] = change.before;
  if (change.kind == Kind::kJob) out["job"] = job_json({.record = change.job});
  return out;
}

json::object refresh_json(const sched::Refresh& refresh) {
  json::object out;
  if (refresh.read > 0) out["read"] = refresh.read;
  out["step"] = refresh.step;
  out["text"] = refresh.text;
  out["before"] = json::value_from(refresh.before);
  out["lengths"] = json::value_from(refresh.lengths);
  out["top_budget"] = refresh.top_budget;
  out["kv_bytes"] = refresh.kv_bytes;
  out["line"] = sched::refresh_line(refresh);
  return out;
}

json::object refreshed_json(const std::string& path, const sched::Refreshed& news) {
  return {{"at", now_json()},
          {"event", "refreshed"},
          {"state", path},
          {"job", news.job},
          {"refresh", refresh_json(news.refresh)}};
}

json::object logprobs_json(const text::Tokenizer& tokenizer,
                           const std::vector<model::Logprobs>& logprobs) {
  json::array content;
  for (const model::Logprobs& each : logprobs) {
    json::object token = token_json(tokenizer, each.token);
    json::array top;
    for (const model::TokenLogprob& other : each.top) top.push_back(token_json(tokenizer, other));
    token["top_logprobs"] = std::move(top);
    content.push_back(std::move(token));
  }
  return {{"content", std::move(content)}};
}

json::object job_json(const sched::JobView& job) {
  const store::JobRecord& record = job.record;
  json::object out{{"name", record.name},
                   {"kind", store::name_of(record.kind)},
                   {"status", store::name_of(record.status)},
                   {"prompt_tokens", record.prompt_tokens},
                   {"generated_tokens", record.generated_tokens},
                   {"known_tokens", record.known_tokens},
                   {"prefilled_tokens", record.prefilled_tokens},
                   {"restored_tokens", record.restored_tokens},
                   {"recomputed_tokens", record.recomputed_tokens},
                   {"milliseconds", times_json(record.times)},
                   {"seed", record.seed},
                   {"seconds", static_cast<double>(record.milliseconds) / 1000.0},
                   {"line", sched::status_line(job)}};
  if (job.tokens_per_second > 0) {
    out["tokens_per_second"] = std::round(job.tokens_per_second * 10) / 10;
  }
  if (job.reading) out["read_tokens"] = job.read_tokens;
  if (!job.refreshes.empty()) out["refreshes"] = refreshes_json(job.refreshes);
  if (!record.finish.empty()) out["finish"] = record.finish;
  if (!record.error.empty()) out["error"] = record.error;
  return out;
}

Result<json::object> state_summary(Services& services, StateId id, const std::string& path) {
  KVFS_ASSIGN(const store::StateRecord record, services.store.state(id));
  json::object out{{"path", path},
                   {"tokens", 0},
                   {"kv_bytes", 0},
                   {"created", time_json(record.created_ns)},
                   {"advanced", time_json(record.advanced_ns)}};
  if (record.version) {
    KVFS_ASSIGN(const store::VersionRecord version, services.store.version(record.version));
    out["tokens"] = version.n_tokens;
    out["kv_bytes"] = version.kv_bytes;
    out["model"] = version.model;
    out["origin"] = store::name_of(version.origin);
  }
  return out;
}

Result<json::object> state_facts(Services& services, StateId id) {
  KVFS_ASSIGN(const std::string path, sched::path_of(services.store, id));
  KVFS_ASSIGN(json::object out, state_summary(services, id, path));
  KVFS_ASSIGN(const store::StateRecord record, services.store.state(id));
  out["id"] = id.value;
  out["uid"] = record.uid;
  out["gid"] = record.gid;
  out["mode"] = record.mode;
  out["changed"] = time_json(record.changed_ns);
  out["params"] = params_json(record.params);
  out["pinned"] = record.pinned;
  json::array snapshots;
  KVFS_ASSIGN(const auto taken, services.store.snapshots(id));
  for (const store::NameEntry& entry : taken) snapshots.emplace_back(entry.name);
  out["snapshots"] = std::move(snapshots);
  out["busy"] = services.scheduler.busy(id);
  json::array jobs;
  for (const sched::JobView& job : services.scheduler.jobs(id)) jobs.push_back(job_json(job));
  out["jobs"] = std::move(jobs);
  if (record.version) {
    KVFS_ASSIGN(const store::VersionRecord version, services.store.version(record.version));
    out["text_bytes"] = version.text_bytes;
    KVFS_ASSIGN(out["state"], state_document(services.store, version));
  }
  return out;
}

json::object status_json(std::string_view lines) {
  json::object out;
  while (!lines.empty()) {
    const std::size_t end = std::min(lines.find('\n'), lines.size());
    const std::string_view line = lines.substr(0, end);
    lines.remove_prefix(std::min(end + 1, lines.size()));
    const std::size_t space = line.find(' ');
    const std::string_view key = line.substr(0, space);
    const std::string_view value =
        space == std::string_view::npos ? std::string_view() : line.substr(space + 1);
    if (key.empty()) continue;
    std::uint64_t whole = 0;
    double number = 0;
    const char* last = value.data() + value.size();
    if (const auto r = std::from_chars(value.data(), last, whole);
        r.ec == std::errc{} && r.ptr == last) {
      out[key] = whole;
    } else if (const auto d = std::from_chars(value.data(), last, number);
               d.ec == std::errc{} && d.ptr == last) {
      out[key] = number;
    } else {
      out[key] = value;
    }
  }
  return out;
}

}  // namespace kvfs::daemon::http
