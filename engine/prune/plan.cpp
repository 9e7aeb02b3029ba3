#include "engine/prune/plan.h"

#include <algorithm>
#include <string>

namespace kvfs::prune {
namespace {

constexpr int kLeastPiece = 32;  // below it, nearly all that is read are requests to repeat

std::string what_of(const Method& method) { return "prune by " + std::string(name_of(method)); }

Status check_known(const Method& method, std::span<const TokenId> tokens) {
  if (std::ranges::none_of(tokens, [](TokenId token) { return token < 0; })) return {};
  return fail(ErrorCode::kInvalid, what_of(method),
              "it reads " + std::to_string(tokens.size()) +
                  " tokens of the text again, and not all of them are known",
              "take a method that needs no text: keep_last, knorm");
}

Result<std::vector<Pass>> repetitions(const Method& method, std::span<const TokenId> text,
                                      Position context, const Repetition& how) {
  const auto count = static_cast<int>(text.size());
  const auto asked = static_cast<int>(std::max(how.ask.size(), how.ask_on.size() + kTokensBefore) +
                                      how.answer.size());
  const int piece = std::min({kPieceTokens, count, context - count - asked});
  if (piece < std::min(kLeastPiece, count)) {
    return fail(ErrorCode::kTooLarge, what_of(method),
                "to repeat the text needs a part of the context, and of " +
                    std::to_string(context) + " positions it takes " + std::to_string(count),
                "take expected, or drop a part first");
  }
  std::vector<Pass> passes;
  for (int begin = 0; begin < count; begin += piece) {
    Pass& pass = passes.emplace_back();
    pass.first = count;
    pass.begin = begin;
    pass.end = std::min(begin + piece, count);
    const auto append = [&](std::span<const TokenId> tokens) {
      pass.tokens.insert(pass.tokens.end(), tokens.begin(), tokens.end());
    };
    append(begin == 0 ? how.ask : how.ask_on);
    if (begin > 0) {
      const int before = std::min(kTokensBefore, begin);
      append(
          text.subspan(static_cast<std::size_t>(begin - before), static_cast<std::size_t>(before)));
    }
    append(how.answer);
    append(
        text.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(pass.end - begin)));
  }
  return passes;
}

}  // namespace

std::int64_t Plan::tokens() const {
  std::int64_t all = 0;
  for (const Pass& pass : passes) all += static_cast<std::int64_t>(pass.tokens.size());
  return all;
}

Status check_plan(const Plan& plan, Position end) {
  const bool repeats = plan.needs == Needs::kReconstruction;
  const bool looks = plan.needs != Needs::kNothing && plan.needs != Needs::kKeyNorms;
  bool fits = plan.passes.empty() != looks;
  for (const Pass& pass : plan.passes) {
    const auto count = static_cast<Position>(pass.tokens.size());
    fits = fits && count > 0 && pass.first >= 0 && pass.first + (repeats ? 0 : count) == end;
    if (repeats) fits = fits && pass.begin >= 0 && pass.begin < pass.end && pass.end <= end;
  }
  const auto tokens = plan.tokens();
  if (plan.needs == Needs::kNewestQuery) fits = fits && tokens == 1;
  if (plan.needs == Needs::kAllQueries || plan.needs == Needs::kExpectedQueries)
    fits = fits && tokens == end;
  if (fits) return {};
  return fail(ErrorCode::kInvalid, "look at what attention sees",
              "the plan is not for a sequence of " + std::to_string(end) + " tokens");
}

Result<Plan> make_plan(const Method& method, std::span<const TokenId> text, Position context,
                       const Repetition& repetition) {
  Plan plan{.needs = needs_of(method), .passes = {}};
  if (text.empty()) {
    return fail(ErrorCode::kInvalid, what_of(method), "the state has no tokens",
                "feed it something first");
  }
  const std::size_t last = reads_the_text(method)
                               ? text.size()
                               : std::min(text.size(), static_cast<std::size_t>(window_of(method)));
  if (last == 0) return plan;
  const std::span<const TokenId> again = text.last(last);
  KVFS_TRY(check_known(method, again));
  if (plan.needs == Needs::kReconstruction) {
    KVFS_ASSIGN(plan.passes, repetitions(method, text, context, repetition));
  } else {
    plan.passes.push_back(
        {static_cast<Position>(text.size() - last), {again.begin(), again.end()}, 0, 0});
  }
  return plan;
}

}  // namespace kvfs::prune
