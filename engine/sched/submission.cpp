#include "engine/sched/submission.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <random>

#include "engine/sched/prompt.h"
#include "engine/sched/pruning.h"
#include "engine/sched/verbs.h"

namespace kvfs::sched {
namespace {

constexpr std::size_t kMaxNameBytes = 255;
constexpr std::int32_t kMaxSteps = 1'000'000;

Status check_name(const std::string& name) {
  const bool fine = name.size() <= kMaxNameBytes && name.find('/') == std::string::npos &&
                    name.find('\0') == std::string::npos && name != "." && name != "..";
  if (fine) return {};
  return fail(ErrorCode::kInvalid, "job " + name.substr(0, kMaxNameBytes),
              "that is no name for a job", "use 1 to 255 bytes without a slash");
}

// Every parameter with its value: what the daemon's defaults become later must not matter.
Result<ParamMap> all_params(const ParamMap& of_state, const ParamMap& overrides) {
  ParamMap out;
  for (const auto& spec : param_table()) out.emplace(spec.name, spec.default_value);
  for (const auto* given : {&of_state, &overrides}) {
    for (const auto& [name, value] : *given) {
      KVFS_ASSIGN(auto checked, check_param(name, value));
      if (!checked.empty()) out[name] = std::move(checked);
    }
  }
  return out;
}

// Unset, a state goes on with the model that made it. Its file may have been renamed: then the
// default is tried, and check_model says whether it is the same.
std::string choose_model(const ParamMap& params, const History& history, const Catalog& catalog) {
  if (const auto& set = params.at("model"); !set.empty()) return set;
  const auto names = catalog.names();
  const bool known = history.id && std::ranges::find(names, history.version.model) != names.end();
  return known ? history.version.model : catalog.default_name();
}

std::uint64_t fresh_seed() {
  std::random_device device;
  return std::uint64_t{device()} << 32U | device();
}

// A snapshot stays what it is; a copy that has not arrived has nothing to go on from yet.
Status check_ready(store::Store& store, StateId id, const store::StateRecord& state) {
  if (state.snapshot) {
    return fail(ErrorCode::kPermission, "snapshot " + state.name, "it is read-only",
                "fork it and ask the fork");
  }
  KVFS_ASSIGN(const auto staged, store.staged(id));
  if (std::ranges::none_of(staged, [](const auto& e) { return is_data_path(e.name); })) return {};
  return fail(ErrorCode::kAgain, "state " + state.name, "a copy onto it is incomplete",
              "see status for what is missing");
}

}  // namespace

Result<store::JobRecord> examine(store::Store& store, Catalog& catalog, HistoryCache& histories,
                                 KnownTexts& known, const Submission& submission, bool changing) {
  KVFS_TRY(check_name(submission.name));
  KVFS_ASSIGN(const auto state, store.state(submission.state));
  KVFS_TRY(check_ready(store, submission.state, state));
  KVFS_ASSIGN(auto params, all_params(state.params, submission.overrides));
  const bool step = submission.kind == store::JobKind::kStep;
  std::optional<prune::Policy> policy;
  if (submission.kind == store::JobKind::kPrune) {
    KVFS_ASSIGN(policy, read_policy(submission.prompt));
  } else if (step) {
    if (submission.steps < 1 || submission.steps > kMaxSteps) {
      return fail(ErrorCode::kInvalid, "step " + std::to_string(submission.steps),
                  "the number of tokens is out of range", "give 1 to 1000000");
    }
    params["max_tokens"] = std::to_string(submission.steps);
  } else {
    KVFS_TRY(check_text(submission.prompt));
  }
  KVFS_ASSIGN(const auto history, histories.get(state.version));
  params["model"] = choose_model(params, *history, catalog);
  KVFS_ASSIGN(const auto* card, catalog.card(params["model"]));
  KVFS_ASSIGN(const auto resolved, resolve_params(params));
  KVFS_TRY(check_model(*card, resolved, *history));
  if (step && history->tokens.empty() && !changing) {
    return fail(ErrorCode::kInvalid, "step", "the state is empty, there is nothing to go on from",
                "feed it, or continue it with some text, first");
  }
  if (!policy && submission.kind != store::JobKind::kFeed && resolved.prune) {
    KVFS_TRY(check_prunes(*resolved.prune, card->info));
  }
  std::int64_t read_again = 0;
  if (policy) {
    KVFS_ASSIGN(const auto plan, plan_pruning(*policy, *card, resolved.mode, *history));
    read_again = plan.tokens();
  }
  KVFS_ASSIGN(const auto prompt, prompt_tokens(*card, resolved, submission.kind, *history,
                                               submission.prompt, known, state.uid));

  store::JobRecord record;
  record.state = submission.state;
  record.name = submission.name;
  record.kind = submission.kind;
  if (policy) {
    record.prompt = prune::to_words(*policy);
  } else if (!step) {
    record.prompt = submission.prompt;
  }
  record.params = std::move(params);
  record.seed = resolved.seed ? *resolved.seed : fresh_seed();
  record.submitted_ns = std::chrono::duration_cast<std::chrono::nanoseconds>(
                            std::chrono::system_clock::now().time_since_epoch())
                            .count();
  record.prompt_tokens = static_cast<std::uint32_t>(policy ? read_again : std::ssize(prompt.ids));
  return record;
}

}  // namespace kvfs::sched
