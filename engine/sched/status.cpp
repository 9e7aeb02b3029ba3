// What status says: a line a job, and the root's `key value` lines.
#include <spdlog/fmt/fmt.h>
#include <unistd.h>

#include <algorithm>

#include "engine/sched/scheduler.h"
#include "engine/sched/verbs.h"

namespace kvfs::sched {
namespace {

std::string one_line(std::string text) {
  std::ranges::replace(text, '\n', ' ');
  return text;
}

// What became of its base, its prompt and its reply, in the order of their times.
std::string done_line(const store::JobRecord& record) {
  const auto& times = record.times;
  std::string out = " done ";
  if (record.kind == store::JobKind::kPrune) {
    return out + fmt::format("{}, {:.1f} s", record.finish, record.milliseconds / 1000.0);
  }
  if (record.restored_tokens > 0) {
    out += fmt::format("{} restored {} ms, ", record.restored_tokens, times.restore);
  }
  if (record.recomputed_tokens > 0) {
    out += fmt::format("{} recomputed {} ms, ", record.recomputed_tokens, times.recompute);
  }
  if (record.prompt_tokens > 0) {
    const std::string took = record.known_tokens > 0 ? fmt::format(" {} ms", times.known) : "";
    out += fmt::format("{} read ({} known{}) {} ms, ", record.prompt_tokens, record.known_tokens,
                       took, times.read);
  }
  if (record.kind != store::JobKind::kFeed) {
    out += fmt::format("{} generated ({}) {} ms, ", record.generated_tokens, record.finish,
                       times.generate);
  }
  return out + fmt::format("{:.1f} s", record.milliseconds / 1000.0);
}

// What it does, with what it takes to: said before it starts.
std::string prune_words(const store::JobRecord& record) {
  const std::string again =
      record.prompt_tokens == 0
          ? std::string()
          : fmt::format(" after reading {} token{} again", record.prompt_tokens,
                        record.prompt_tokens == 1 ? "" : "s");
  return record.prompt + again;
}

std::string running_line(const JobView& job) {
  const auto& record = job.record;
  if (record.kind == store::JobKind::kPrune && job.read_tokens == 0) {
    return " pruning: " + prune_words(record);
  }
  if (record.kind == store::JobKind::kPrune) {
    return fmt::format(" pruning: {} after reading {}/{} tokens again", record.prompt,
                       job.read_tokens, record.prompt_tokens);
  }
  if (job.reading || record.kind == store::JobKind::kFeed) {
    return fmt::format(" reading {}/{} ({} known)", job.read_tokens, record.prompt_tokens,
                       record.known_tokens);
  }
  const auto most = record.params.find("max_tokens");
  return fmt::format(" running {}/{} {:.1f} tok/s", record.generated_tokens,
                     most == record.params.end() ? "?" : most->second, job.tokens_per_second);
}

}  // namespace

std::string status_line(const JobView& job) {
  const auto& record = job.record;
  const auto rest = [&]() -> std::string {
    switch (record.status) {
      case store::JobStatus::kQueued:
        if (record.kind != store::JobKind::kPrune) return " queued";
        return " queued: " + prune_words(record);
      case store::JobStatus::kRunning:
        return running_line(job);
      case store::JobStatus::kDone:
        return done_line(record);
      case store::JobStatus::kFailed:
        return " error: " + record.error;
      case store::JobStatus::kCanceled:
        return fmt::format(" canceled {} generated", record.generated_tokens);
    }
    return {};
  };
  return one_line(record.name + rest());
}

std::string refresh_line(const Refresh& refresh) {
  const std::string at =
      refresh.read > 0 ? fmt::format("{} read", refresh.read) : fmt::format("{}", refresh.step);
  return one_line(fmt::format("pruned at {} \"{}\" lengths {} top {}/{} {:.1f} MB", at,
                              refresh.text, fmt::join(refresh.lengths, ","), refresh.lengths.back(),
                              refresh.top_budget, static_cast<double>(refresh.kv_bytes) / 1e6));
}

std::string status_lines(const JobView& job) {
  std::string out = status_line(job) + "\n";
  for (auto it = job.refreshes.rbegin(); it != job.refreshes.rend(); ++it) {
    out += job.record.name + " " + refresh_line(*it) + "\n";
  }
  return out;
}

std::string root_status(store::Store& store, Scheduler& scheduler, Catalog& catalog) {
  const auto counters = scheduler.counters();
  const auto statistics = store.statistics();
  const auto loaded = scheduler.loaded_models();
  const auto loading = scheduler.loading();
  std::string models;
  for (const auto& name : catalog.names()) {
    models += (models.empty() ? "" : ", ") + name;
    if (std::ranges::find(loaded, name) != loaded.end()) models += " (loaded)";
    if (loading && loading->name == name)
      models += fmt::format(" (loading {} %)", loading->percent);
  }
  const double ratio = statistics.bytes_unique == 0
                           ? 1.0
                           : static_cast<double>(statistics.bytes_logical) /
                                 static_cast<double>(statistics.bytes_unique);
  const bool reference = catalog.options().compute == model::Compute::kReference;
  std::string out;
  const auto line = [&](std::string_view key, const auto& value) {
    out += fmt::format("{} {}\n", key, value);
  };
  line("version", KVFS_VERSION);
  line("pid", ::getpid());
  line("device", scheduler.device());
  line("compute", reference ? "reference" : "fast");
  line("models", models);
  line("queue", counters.queued);
  line("running", counters.running);
  line("prefilled_tokens", counters.prefilled_tokens);
  line("decoded_tokens", counters.decoded_tokens);
  line("restored_tokens", counters.restored_tokens);
  line("prefix_hit_tokens", counters.prefix_hit_tokens);
  line("prefill_tokens_per_second", fmt::format("{:.1f}", counters.prefill_tokens_per_second));
  line("restore_mb_per_second", fmt::format("{:.1f}", counters.restore_bytes_per_second / 1e6));
  line("kv_bytes_on_device", counters.kv_bytes);
  line("states", statistics.states);
  line("bytes_logical", statistics.bytes_logical);
  line("bytes_stored", statistics.bytes_stored);
  line("bytes_unique", statistics.bytes_unique);
  line("dedup_ratio", fmt::format("{:.2f}", ratio));
  return out;
}

}  // namespace kvfs::sched
