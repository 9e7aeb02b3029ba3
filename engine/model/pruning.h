// From a method's words to a choice of entries: what the verbs call.
//
//   plan    = plan_pruning(card, method, tokens, chat)     plan.tokens(): the cost, told beforehand
//   kept    = choose_entries(model, sequence, method, plan, go_on)
//   status  = model.prune(sequence, kept)
//
// The engine thread, but for plan_pruning: any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "codec/base/result.h"
#include "engine/model/model.h"
#include "engine/prune/methods.h"
#include "engine/prune/observation.h"
#include "engine/prune/plan.h"

namespace kvfs::model {

// tokens: of the whole sequence, −1 where unknown. chat: its turns are by the model's template.
// Errors: prune::make_plan's.
Result<prune::Plan> plan_pruning(const ModelCard& card, const prune::Method& method,
                                 const std::vector<TokenId>& tokens, bool chat);

// go_on is told after each slice how many of the plan's tokens were read; others may be served from
// within it. False stops: kCanceled. Errors: look_again's, prune::choose's.
Result<prune::Kept> choose_entries(Model& model, const Sequence& sequence,
                                   const prune::Method& method, prune::Plan plan,
                                   const std::function<bool(std::int64_t tokens_read)>& go_on = {});

}  // namespace kvfs::model
