#include "engine/model/pruning.h"

#include <algorithm>
#include <memory>
#include <string_view>
#include <utility>

#include "engine/prune/choose.h"

namespace kvfs::model {
namespace {

constexpr std::string_view kAsk = "\n\nRepeat the previous context exactly.";
constexpr std::string_view kAskOn =
    "\n\nRepeat the part of the previous context exactly, starting with";

// Tokens that both end with.
std::size_t common_end(const std::vector<TokenId>& a, const std::vector<TokenId>& b) {
  const auto apart = std::mismatch(a.rbegin(), a.rend(), b.rbegin(), b.rend());
  return static_cast<std::size_t>(apart.first - a.rbegin());
}

prune::Repetition repetition_of(const ModelCard& card, const std::vector<TokenId>& tokens,
                                bool chat) {
  prune::Repetition how;
  if (!chat || card.chat == nullptr) {
    const auto encode = [&](std::string_view text) {
      return card.tokenizer->encode(text, text::SpecialText::kAsText);
    };
    return {.ask = encode(kAsk), .ask_on = encode(kAskOn), .answer = encode("\n")};
  }
  how.ask = card.chat->prompt(tokens, kAsk);
  how.ask_on = card.chat->prompt(tokens, kAskOn);
  // What the template writes from the end of the user's text to the reply.
  const std::size_t end = common_end(how.ask, how.ask_on);
  how.answer.assign(how.ask.end() - static_cast<std::ptrdiff_t>(end), how.ask.end());
  how.ask.resize(how.ask.size() - end);
  how.ask_on.resize(how.ask_on.size() - end);
  return how;
}

}  // namespace

Result<prune::Observation> Model::observe(const Sequence& sequence, prune::Needs needs,
                                          std::span<const TokenId> last) {
  if (needs == prune::Needs::kReconstruction) {
    return fail(ErrorCode::kUnsupported, "look at what attention sees",
                "a model has to be asked to repeat a text, which takes a plan",
                "use a method that needs no repetition: expected");
  }
  prune::Plan plan{.needs = needs, .passes = {}};
  if (!last.empty()) {
    const auto first = sequence.next_pos() - static_cast<Position>(last.size());
    plan.passes.push_back({first, {last.begin(), last.end()}, 0, 0});
  }
  KVFS_ASSIGN(const auto observer, look_again(sequence, std::move(plan)));
  for (bool all = false; !all;) {
    KVFS_ASSIGN(all, observer->read());
  }
  return observer->take();
}

Result<prune::Plan> plan_pruning(const ModelCard& card, const prune::Method& method,
                                 const std::vector<TokenId>& tokens, bool chat) {
  prune::Repetition how;
  if (prune::needs_of(method) == prune::Needs::kReconstruction)
    how = repetition_of(card, tokens, chat);
  return prune::make_plan(method, tokens, card.info.context_length, how);
}

Result<prune::Kept> choose_entries(Model& model, const Sequence& sequence,
                                   const prune::Method& method, prune::Plan plan,
                                   const std::function<bool(std::int64_t tokens_read)>& go_on) {
  const std::string what = "prune by " + std::string(prune::name_of(method));
  KVFS_ASSIGN(const auto observer, model.look_again(sequence, std::move(plan)));
  for (bool all = false; !all;) {
    KVFS_ASSIGN(all, observer->read());
    if (go_on && !go_on(observer->tokens_read()))
      return fail(ErrorCode::kCanceled, what, "it was stopped while it read the text again");
  }
  KVFS_ASSIGN(const prune::Observation seen, observer->take());
  return prune::choose(method, seen);
}

}  // namespace kvfs::model
