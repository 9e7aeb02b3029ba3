// Log probabilities of a reply's tokens as they are kept beside its text: docs/FORMAT.md, area 3.
// Pure functions, any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "codec/base/result.h"
#include "engine/model/sampling.h"

namespace kvfs::sched {

std::string encode_logprobs(const std::vector<model::Logprobs>& logprobs);
// kCorrupt where the bytes do not parse.
Result<std::vector<model::Logprobs>> decode_logprobs(std::string_view bytes);

}  // namespace kvfs::sched
