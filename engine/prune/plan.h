// What has to go through the model again before a method can choose: the cost, known before it
// starts.
//
// Plain values, any thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "codec/base/ids.h"
#include "codec/base/result.h"
#include "engine/prune/methods.h"
#include "engine/prune/policy.h"

namespace kvfs::prune {

// Tokens read on a fork of the state, which ends at their first one's position.
struct Pass {
  Position first = 0;
  std::vector<TokenId> tokens;
  // kReconstruction: the piece that the tokens repeat.
  Position begin = 0;
  Position end = 0;
};

struct Plan {
  Needs needs = Needs::kNothing;
  std::vector<Pass> passes;

  std::int64_t tokens() const;
};

// How a model is asked to repeat a text (kvzip): before the piece, in tokens. kvpress,
// kvzip_press.py, prepare().
struct Repetition {
  std::vector<TokenId> ask;     // for the first piece
  std::vector<TokenId> ask_on;  // for a later one: "… starting with", then the tokens before it
  std::vector<TokenId> answer;  // between what was asked and the piece
};
inline constexpr int kPieceTokens =
    2048;  // of the text, repeated at once: fewer, if the context leaves fewer
inline constexpr int kTokensBefore = 8;  // of a piece, by which it is named

// text: the state's tokens from position 0 on, −1 where unknown. context: positions that the model
// has. kInvalid: there is no token, or one that has to be read again is unknown; kTooLarge: the
// context leaves no room to repeat the text.
Result<Plan> make_plan(const Method& method, std::span<const TokenId> text, Position context,
                       const Repetition& repetition);

// kInvalid: not a plan for a sequence that ends at this position.
Status check_plan(const Plan& plan, Position end);

}  // namespace kvfs::prune
