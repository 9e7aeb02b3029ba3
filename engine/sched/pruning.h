// Pruning as jobs do it: a policy in words, checked against a state; carried out on a sequence; and
// what a version says of how it came to be.
//
// prune_sequence: engine thread; the rest is pure, any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model/model.h"
#include "engine/prune/plan.h"
#include "engine/prune/policy.h"
#include "engine/sched/history.h"
#include "engine/sched/loaded_models.h"

namespace kvfs::sched {

// Of ctl, `kvfs prune` and HTTP; no words: kDefaultPolicy.
Result<prune::Policy> read_policy(std::string_view words);
// Of params/prune; nothing for "off". kInvalid: it cannot be applied again and again while tokens
// are generated.
Result<std::optional<prune::Policy>> read_running_policy(std::string_view words);

// That the model can do it at all.
Status check_prunes(const prune::Policy& policy, const model::ModelInfo& model);
// What has to be read again first; refuses what can be known before the state is on the device.
Result<prune::Plan> plan_pruning(const prune::Policy& policy, const model::ModelCard& card,
                                 TemplateMode mode, const History& history);
// "reads 64 tokens again first"; empty: none is read.
std::string reading_words(std::uint64_t tokens);

// About how many of so many entries stay in the fullest layer; a union may exceed it.
std::int64_t entries_left(const prune::Method& method, std::int64_t entries);

struct Refreshing {          // while generating
  std::uint64_t every = 16;  // tokens between two prunings
  std::size_t start = 256;   // entries of the bottom layer before the first
};
Refreshing refreshing_of(const prune::Method& method);

struct Lengths {                         // of a cache
  std::vector<std::uint32_t> of_layers;  // from the bottom; where heads differ, their mean
  std::uint64_t bytes = 0;
};
struct Pruned {
  Lengths before, after;
  std::uint32_t top_budget = 0;  // what the policy wanted of the top layer; a union may exceed it
  bool changed = false;  // false: everything stayed where it was, the sequence was not touched
  Position moved = 0;    // positions that the next token went down
  Position next_pos = 0;
};
// go_on: as model::choose_entries() has it.
Result<Pruned> prune_sequence(LoadedModel& on, model::Sequence& sequence,
                              const prune::Policy& policy, prune::Plan plan,
                              const std::function<bool(std::int64_t)>& go_on);
// By what the sequence's newest token saw while it was computed (DecodeItem::seen).
Result<Pruned> prune_sequence(LoadedModel& on, model::Sequence& sequence,
                              const prune::Policy& policy, const prune::Observation& seen);
std::string summary(const Pruned& pruned);  // "4000 to 640 … 128 entries, 184.3 to 29.1 MB"

// What state.json says of a pruned version beside its kind: method, parameters, prefill_chunk (in
// which pieces it was read; none: 0), the parent's root and, where that one was not just computed,
// its origin as "before". The same once more, while it reads or generates, is the same pruning
// still. whole: a job of its own.
std::string pruned_detail(const store::VersionRecord& base, const prune::Policy& policy,
                          std::int32_t prefill_chunk, bool whole);
// Entries were moved: the text's first `tokens` do not stand at positions of their own any more.
std::string with_moved(const std::string& detail, std::uint64_t tokens);
// How many of a version's first tokens those are; 0: none.
std::uint64_t moved_tokens(const store::VersionRecord& version);
// Of a text that has more tokens than the cache has positions the last ones are told to stand at
// these, and those before them at 0: positions ascend, and each has the tokens that it is told of.
void renumber(std::vector<store::BlockToken>& tokens, std::size_t count, Position next_pos);
// Tokens that a state had generated, as a pruned version's detail carries it: where the next
// refresh falls, also in a copy, whose tokens do not tell how they came to be.
std::string with_generated(const std::string& detail, std::uint64_t tokens);
std::uint64_t generated_in(const History& history);

}  // namespace kvfs::sched
