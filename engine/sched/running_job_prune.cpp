// When a running job is pruned, by what, and what is told of it.
#include <algorithm>
#include <utility>

#include "engine/model/pruning.h"
#include "engine/sched/running_job.h"

namespace kvfs::sched {

std::uint64_t RunningJob::generated_so_far() const {
  return generated_before_ + progress_.generated_tokens - (stage_ == Stage::kGenerating ? 1 : 0);
}

std::span<const TokenId> RunningJob::ids_in_sequence() const {
  if (stage_ == Stage::kGenerating) return std::span(ids_).first(ids_.size() - 1);
  const auto unread = static_cast<std::size_t>(std::max(read_end_ - position(), 0));
  return std::span(ids_).first(ids_.size() - unread);
}

Result<prune::Plan> RunningJob::plan_now() const {
  auto ids = ids_in_sequence();  // where entries were moved, those that have a position
  ids = ids.last(std::min(ids.size(), static_cast<std::size_t>(position())));
  return model::plan_pruning(*setup_.card, policy_->method, {ids.begin(), ids.end()},
                             setup_.params.mode != TemplateMode::kRaw);
}

void RunningJob::read_again(std::int64_t tokens) {
  progress_.read_tokens = static_cast<std::uint32_t>(tokens);
}

// While generating every so many tokens, counted from the first that the state ever generated: so a
// reply that is stopped and goes on is pruned where one at a stretch would be.
const prune::Policy* RunningJob::policy_now() {
  if (!policy_) return nullptr;
  if (stage_ == Stage::kPruning) return &*policy_;
  const std::uint64_t generated = generated_so_far();
  if (stage_ != Stage::kGenerating || looked_at_ == generated) return nullptr;
  const Refreshing refreshing = refreshing_of(policy_->method);
  if (generated == 0 || generated % refreshing.every != 0) return nullptr;
  looked_at_ = generated;
  const auto bottom = on_.model->positions(*sequence_, 0);
  // What a device that cannot prune has to say, prune_sequence gets to hear.
  const auto enough = [&](const auto& head) { return head.size() >= refreshing.start; };
  return !bottom || std::ranges::any_of(*bottom, enough) ? &*policy_ : nullptr;
}

prune::Observation* RunningJob::look() {
  const bool generating = stage_ == Stage::kGenerating;
  if (!policy_ || !on_.model->info().prunes || (!generating && stage_ != Stage::kLast) ||
      prune::needs_of(policy_->method) != prune::Needs::kNewestQuery) {
    return nullptr;
  }
  const std::uint64_t then = generated_so_far() + (generating ? 1 : 0);
  if (then == 0 || then % refreshing_of(policy_->method).every != 0) return nullptr;
  seen_.clear();
  seen_at_ = then;
  return &seen_;
}

std::optional<prune::Observation> RunningJob::take_seen() {
  if (stage_ != Stage::kGenerating || seen_.empty() || seen_at_ != generated_so_far())
    return std::nullopt;
  return std::exchange(seen_, {});
}

void RunningJob::tell_refresh(const Pruned& what) {
  text::Utf8Stream latest;
  constexpr std::size_t kShown = 8;
  Refresh refresh;
  const auto ids = ids_in_sequence();
  for (const TokenId id : ids.last(std::min(kShown, ids.size()))) {
    if (id >= 0) refresh.text += latest.push(setup_.card->tokenizer->bytes_of(id));
  }
  if (stage_ == Stage::kPruning) {
    refresh.read = static_cast<std::uint32_t>(ids.size() - setup_.base->ids.size());
  } else {
    refresh.step = progress_.generated_tokens - 1;
  }
  refresh.before = what.before.of_layers;
  refresh.lengths = what.after.of_layers;
  refresh.top_budget = what.top_budget;
  refresh.kv_bytes = what.after.bytes;
  table_.refreshed(ticket(), std::move(refresh));
}

Status RunningJob::pruned(const Pruned& what) {
  if (what.changed && !pruned_) {
    pruned_ = true;
    chain_.break_off();
    known_.clear();
    next_out_ = 0;
    pruned_detail_ =
        pruned_detail(setup_.base->version, *policy_, setup_.params.prefill_chunk, prunes());
  }
  if (what.moved > 0) {
    read_end_ -= what.moved;
    moved_ = ids_in_sequence().size();
    renumber(tokens_, moved_, position());
  }
  if (!prunes()) tell_refresh(what);
  if (stage_ == Stage::kGenerating) return {};
  if (!prunes()) {
    after_reading();
    return {};
  }
  progress_.prefilled_tokens = progress_.prompt_tokens;
  finish_ = setup_.handed.record.prompt + ": " + summary(what);
  append(summary(what) + "\n");
  enter(Stage::kDraining);
  return {};
}

}  // namespace kvfs::sched
