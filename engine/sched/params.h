// Parameters of a state and of a job: names, ranges, defaults. One table serves params/, `kvfs
// set`, job flags and HTTP.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "codec/base/result.h"
#include "codec/chunk/codec.h"
#include "engine/model/sampling.h"
#include "engine/prune/policy.h"

namespace kvfs::sched {

using ParamMap = std::map<std::string, std::string>;

struct ParamSpec {
  std::string_view name;
  std::string_view
      default_value;      // "" : unset (model: the daemon's default; seed: a fresh one a job)
  std::string_view help;  // one line, with the range
};
std::span<const ParamSpec> param_table();
bool is_param(std::string_view name);

// The value as it is kept (surrounding white space and one trailing newline dropped, numbers
// canonical), or kInvalid with the range. An empty value means the default.
Result<std::string> check_param(std::string_view name, std::string_view value);

enum class TemplateMode { kAuto, kChat, kRaw };  // auto: chat where the model has a chat template
enum class PromptFormat { kText, kMessages };
enum class Truncate {
  kError,
  kHead,
  kTail
};  // keep the head, or the tail, of a text that is too long

struct JobParams {
  std::string model;  // empty: the default
  TemplateMode mode = TemplateMode::kAuto;
  PromptFormat format = PromptFormat::kText;
  std::int32_t max_tokens = 256;
  model::SamplingParams sampling;  // seed filled in by the scheduler
  std::optional<std::uint64_t> seed;
  std::vector<std::string> stop;  // strings; given as a JSON array or one a line
  std::int32_t logprobs = 0;      // likeliest tokens told with each generated one; 0: none is told
  std::int32_t max_prefix_tokens =
      0;  // most tokens the history may hold after reading; 0: the context
  Truncate truncate = Truncate::kError;
  chunk::CodecId codec = chunk::CodecId::kZh;
  std::optional<prune::Policy> prune;  // while generating
  // … and while reading, each time that the state's tokens are so many, or twice, …; 0: not then
  std::int32_t prefill_chunk = 0;
};
// Values must have passed check_param.
Result<JobParams> resolve_params(const ParamMap& set);

}  // namespace kvfs::sched
