// What of a cache stays.
//
// Pure functions: same policy and observation, same choice, on any machine but for the rounding of
// the scores themselves. Ties go to the lower position. Every head keeps an entry at least.
#pragma once

#include "codec/base/result.h"
#include "engine/prune/observation.h"
#include "engine/prune/policy.h"

namespace kvfs::prune {

// kInvalid: the method cannot work on this cache (nothing would stay; heads differ where it needs
// them equal). kInternal: the observation is not what the method needs.
Result<Kept> choose(const Method& method, const Observation& observation);

}  // namespace kvfs::prune
