// A prompt's way to tokens: what may be read, in which template, and how much of it fits.
//
// Pure functions, any thread. The scheduler asks them twice: when a prompt is checked, and when its
// job begins, since jobs before it may have made the history longer.
#pragma once

#include <string_view>
#include <vector>

#include "engine/model/model.h"
#include "engine/sched/history.h"
#include "engine/sched/params.h"

namespace kvfs::sched {

// kInvalid: empty, or not UTF-8.
Status check_text(std::string_view text);

// Whether these parameters and this history go together with the model: fingerprint, KV type,
// template.
Status check_model(const model::ModelCard& card, const JobParams& params, const History& history);

// The ids that a job of this kind appends before it generates, cut where `truncate` says so.
// kTooLarge when they do not fit. Generating kinds leave room for one token at least.
Result<std::vector<TokenId>> prompt_tokens(const model::ModelCard& card, const JobParams& params,
                                           store::JobKind kind, const History& history,
                                           std::string_view text);

}  // namespace kvfs::sched
