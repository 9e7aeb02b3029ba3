// What a step of the forward pass computes: rows of one prompt, in order, or one row for each of
// several sequences.
#pragma once

#include <span>

#include "engine/model/cpu/paged_sequence.h"
#include "engine/model/cpu/watch.h"

namespace kvfs::model::cpu {

// One token. Its sequence has a writable place for it and the pages before it.
struct StepRow {
  TokenId token;
  PagedSequence* sequence;
  Position pos;
  std::span<float> logits;  // [vocab] or empty
  Watch* watch = nullptr;   // of its attention
};

}  // namespace kvfs::model::cpu
