// A pruning policy in words: `pyramid window=160 bottom=640`, the same in ctl, params/prune and
// `kvfs prune`.
//
// Plain values, any thread. What is wrong is kInvalid, in words: an unknown method or parameter, a
// value that is none, is out of range or contradicts another.
#pragma once

#include <string>
#include <string_view>

#include "codec/base/result.h"
#include "engine/prune/methods.h"

namespace kvfs::prune {

struct Policy {
  Method method;
  bool compact = false;  // positions=compact: kept keys are rotated to 0 … n − 1
};

// What to prune by when no method is named: docs/PRUNING.md has the measurements.
inline constexpr std::string_view kDefaultPolicy = "kvzip keep=0.5";

Result<Policy> parse_policy(std::string_view words);
// Every parameter, defaults too, in one order: what a version's identity carries. parse_policy
// takes it back.
std::string to_words(const Policy& policy);
std::string_view name_of(const Method& method);

// What choose() has to be told of each layer, beside its positions; see observation.h.
enum class Needs {
  kNothing,
  kKeyNorms,
  kNewestQuery,
  kWindowQueries,
  kAllQueries,
  kExpectedQueries,
  kReconstruction,
};
Needs needs_of(const Method& method);
// The text has to be run again, from its beginning.
bool reads_the_text(const Method& method);
int window_of(const Method& method);  // last tokens whose queries are needed; 0: none

}  // namespace kvfs::prune
