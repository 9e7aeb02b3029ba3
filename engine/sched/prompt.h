// A prompt's way to tokens: what may be read, in which template, and how much of it fits.
//
// Any thread; pure, but for what is known when they are called. The scheduler asks them twice: when
// a prompt is checked, and when its job begins, since jobs before it may have made the history
// longer.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "engine/model/model.h"
#include "engine/sched/history.h"
#include "engine/sched/known_texts.h"
#include "engine/sched/params.h"

namespace kvfs::sched {

// kInvalid: empty, or not UTF-8.
Status check_text(std::string_view text);

// Whether these parameters and this history go together with the model: fingerprint, KV type,
// template.
Status check_model(const model::ModelCard& card, const JobParams& params, const History& history);

struct Prompt {
  std::vector<TokenId> ids;
  std::optional<KnownTexts::Part> known;  // the block that what was known by its text ends in
};

// The ids that a job of this kind appends before it generates, cut where `truncate` says so.
// kTooLarge when they do not fit. Generating kinds leave room for one token at least.
//
// A conversation given as messages must begin as the history does, which then is not read again; on
// an empty state it takes over the ids of what the owner's states hold of it.
Result<Prompt> prompt_tokens(const model::ModelCard& card, const JobParams& params,
                             store::JobKind kind, const History& history, std::string_view text,
                             KnownTexts& known, std::uint32_t uid);

}  // namespace kvfs::sched
