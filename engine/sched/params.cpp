#include "engine/sched/params.h"

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <charconv>
#include <cmath>
#include <limits>

#include "engine/sched/pruning.h"
#include "engine/text/tokenizer.h"

namespace kvfs::sched {
namespace {

constexpr std::size_t kMaxStops = 16;
constexpr std::size_t kMaxStopBytes = 256;
constexpr std::size_t kMaxNameBytes = 255;
constexpr std::size_t kMaxBiases = 1024;
constexpr float kMaxBias = 100;  // as OpenAI has it

constexpr std::array kTable = {
    ParamSpec{"model", "", "name of a model; unset: the daemon's default"},
    ParamSpec{"template", "", "chat or raw; unset: chat where the model has a chat template"},
    ParamSpec{"format", "text",
              "text, or messages: a prompt is a JSON array of {\"role\", \"content\"}, the whole "
              "conversation"},
    ParamSpec{"max_tokens", "256", "most tokens to generate, 1 to 1000000"},
    ParamSpec{"temperature", "0.8", "0 to 10; 0 takes the likeliest token"},
    ParamSpec{"top_p", "1", "above 0, at most 1; 1 is off"},
    ParamSpec{"top_k", "0", "0 to 1000000; 0 is off"},
    ParamSpec{"min_p", "0", "0 to below 1; 0 is off"},
    ParamSpec{"typical", "1", "above 0, at most 1; 1 is off"},
    ParamSpec{"repeat_penalty", "1", "above 0, at most 10; 1 is off"},
    ParamSpec{"presence_penalty", "0", "-2 to 2; 0 is off"},
    ParamSpec{"frequency_penalty", "0", "-2 to 2; 0 is off"},
    ParamSpec{"logit_bias", "",
              "a JSON object of at most 1024 token ids, each with a bias of -100 to 100: "
              "{\"42\": -100}"},
    ParamSpec{"logprobs", "0",
              "0 to 20: the likeliest tokens to tell with each generated one; 0 is off"},
    ParamSpec{"seed", "", "0 to 18446744073709551615; unset: a fresh one each job"},
    ParamSpec{"stop", "", "up to 16 strings that end a reply: one a line, or a JSON array"},
    ParamSpec{"max_prefix_tokens", "0",
              "most tokens the history may hold after reading, 0 to 100000000; 0: the context"},
    ParamSpec{"truncate", "error", "error, head or tail: what to keep of a text that is too long"},
    ParamSpec{"codec", "zh", "zh (lossless, smaller) or raw"},
    ParamSpec{"prune", "off",
              "off, or how the KV is kept small while it generates: pyramid window=160 bottom=640 "
              "top=128 refresh=24 start=256"},
    ParamSpec{"prefill_chunk", "0",
              "0, or 16 to 1000000: tokens after which a prompt that is being read is pruned as "
              "the parameter prune says"},
};

const ParamSpec* find(std::string_view name) {
  const auto it = std::ranges::find(kTable, name, &ParamSpec::name);
  return it == kTable.end() ? nullptr : &*it;
}

std::string_view trim(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n\v\f";
  const auto first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

tl::unexpected<Error> refuse(const ParamSpec& spec, std::string_view value, std::string why) {
  constexpr std::size_t kShown = 40;
  const std::string shown(value.substr(0, kShown));
  return fail(ErrorCode::kInvalid, "parameter " + std::string(spec.name),
              "\"" + shown + "\" " + std::move(why), "give " + std::string(spec.help));
}

template <class Number>
std::string print(Number value) {
  std::array<char, 64> buffer{};
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value);
  return std::string(buffer.data(), end.ptr);
}

template <class Number>
std::optional<Number> parse(std::string_view text) {
  Number value{};
  const char* end = text.data() + text.size();
  const auto got = std::from_chars(text.data(), end, value);
  if (got.ec != std::errc{} || got.ptr != end) return std::nullopt;
  return value;
}

template <class Number>
struct Range {
  Number low, high;
  bool low_open = false, high_open = false;
  bool holds(Number x) const {
    return (low_open ? x > low : x >= low) && (high_open ? x < high : x <= high);
  }
};

template <class Number>
Result<std::string> number(const ParamSpec& spec, std::string_view value, Range<Number> range) {
  const auto parsed = parse<Number>(value);
  if (!parsed) return refuse(spec, value, "is not such a number");
  if (!range.holds(*parsed)) return refuse(spec, value, "is out of range");
  if constexpr (std::is_floating_point_v<Number>) {
    if (*parsed == 0) return std::string("0");  // -0 is 0
  }
  return print(*parsed);
}

Result<std::string> one_of(const ParamSpec& spec, std::string_view value,
                           std::initializer_list<std::string_view> words) {
  if (std::ranges::find(words, value) == words.end()) {
    return refuse(spec, value, "is not one of its words");
  }
  return std::string(value);
}

// A JSON array of strings, else one string a line: "[/INST]" is a line.
std::vector<std::string> stop_strings(std::string_view value) {
  std::vector<std::string> out;
  if (const auto body = trim(value); body.starts_with('[')) {
    boost::system::error_code error;
    const auto parsed = boost::json::parse(body, error);
    const bool strings = !error && parsed.is_array() &&
                         std::ranges::all_of(parsed.as_array(), [](const boost::json::value& v) {
                           return v.is_string();
                         });
    if (strings) {
      for (const auto& item : parsed.as_array()) out.emplace_back(item.as_string());
      return out;
    }
  }
  while (!value.empty()) {
    const auto line = value.substr(0, value.find('\n'));
    if (!line.empty()) out.emplace_back(line);
    value.remove_prefix(std::min(value.size(), line.size() + 1));
  }
  return out;
}

Result<std::string> check_stop(const ParamSpec& spec, std::string_view value) {
  const auto strings = stop_strings(value);
  if (strings.size() > kMaxStops) return refuse(spec, value, "has more than 16 strings");
  boost::json::array list;
  for (const auto& text : strings) {
    if (text.empty()) return refuse(spec, value, "has an empty string");
    if (text.size() > kMaxStopBytes) return refuse(spec, value, "has one of more than 256 bytes");
    list.emplace_back(text);
  }
  return list.empty() ? std::string() : boost::json::serialize(list);
}

// {"42": -100, …}, ids ascending, numbers canonical.
Result<std::string> check_bias(const ParamSpec& spec, std::string_view value) {
  boost::system::error_code error;
  const auto parsed = boost::json::parse(value, error);
  if (error || !parsed.is_object()) return refuse(spec, value, "is not a JSON object");
  std::map<TokenId, float> biases;
  for (const auto& [key, given] : parsed.as_object()) {
    const auto id = parse<TokenId>(key);
    if (!id || *id < 0) return refuse(spec, key, "is no token id");
    const auto bias = given.is_number() ? given.to_number<double>() : kMaxBias + 1;
    if (!(std::abs(bias) <= kMaxBias)) {
      return refuse(spec, boost::json::serialize(given), "is out of range");
    }
    if (bias != 0) biases[*id] = static_cast<float>(bias);
  }
  if (biases.size() > kMaxBiases) return refuse(spec, value, "has more than 1024 ids");
  std::string out;
  for (const auto& [id, bias] : biases) {
    out += (out.empty() ? "{\"" : ",\"") + print(id) + "\":" + print(bias);
  }
  return out.empty() ? out : out + "}";
}

std::vector<std::pair<TokenId, float>> biases_of(std::string_view checked) {
  std::vector<std::pair<TokenId, float>> out;
  if (checked.empty()) return out;
  const auto parsed = boost::json::parse(checked);
  for (const auto& [key, bias] : parsed.as_object()) {
    out.emplace_back(*parse<TokenId>(key), bias.to_number<float>());
  }
  return out;
}

Result<std::string> check_prune(std::string_view value) {
  KVFS_ASSIGN(const auto policy, read_running_policy(value));
  return policy ? prune::to_words(*policy) : std::string("off");
}

Result<std::string> check_chunk(const ParamSpec& spec, std::string_view value) {
  constexpr std::int32_t kLeast = 16;
  KVFS_ASSIGN(auto checked, number<std::int32_t>(spec, value, {0, 1'000'000}));
  const auto tokens = *parse<std::int32_t>(checked);
  if (tokens > 0 && tokens < kLeast) return refuse(spec, value, "is out of range");
  return checked;
}

Result<std::string> check_name(const ParamSpec& spec, std::string_view value) {
  const bool printable = std::ranges::all_of(
      value, [](char c) { return static_cast<unsigned char>(c) >= 0x20 && c != '/'; });
  if (!printable || value.size() > kMaxNameBytes) return refuse(spec, value, "is not a name");
  return std::string(value);
}

}  // namespace

std::span<const ParamSpec> param_table() { return kTable; }
bool is_param(std::string_view name) { return find(name) != nullptr; }

Result<std::string> check_param(std::string_view name, std::string_view raw) {
  const ParamSpec* spec = find(name);
  if (spec == nullptr) {
    std::string known;
    for (const auto& each : kTable) known += (known.empty() ? "" : ", ") + std::string(each.name);
    return fail(ErrorCode::kInvalid, "parameter " + std::string(name), "there is no such parameter",
                "use one of " + known);
  }
  if (!text::is_valid_utf8(raw)) return refuse(*spec, "", "is not UTF-8");
  if (name == "stop") return check_stop(*spec, raw);
  const auto value = trim(raw);
  if (value.empty()) return std::string();
  if (name == "model") return check_name(*spec, value);
  if (name == "template") return one_of(*spec, value, {"chat", "raw"});
  if (name == "format") return one_of(*spec, value, {"text", "messages"});
  if (name == "truncate") return one_of(*spec, value, {"error", "head", "tail"});
  if (name == "max_tokens") return number<std::int32_t>(*spec, value, {1, 1'000'000});
  if (name == "top_k") return number<std::int32_t>(*spec, value, {0, 1'000'000});
  if (name == "max_prefix_tokens") return number<std::int32_t>(*spec, value, {0, 100'000'000});
  if (name == "seed") {
    return number<std::uint64_t>(*spec, value, {0, std::numeric_limits<std::uint64_t>::max()});
  }
  if (name == "temperature") return number<float>(*spec, value, {0.F, 10.F});
  if (name == "top_p" || name == "typical") {
    return number<float>(*spec, value, {0.F, 1.F, true, false});
  }
  if (name == "min_p") return number<float>(*spec, value, {0.F, 1.F, false, true});
  if (name == "repeat_penalty") return number<float>(*spec, value, {0.F, 10.F, true, false});
  if (name == "presence_penalty" || name == "frequency_penalty") {
    return number<float>(*spec, value, {-2.F, 2.F});
  }
  if (name == "logit_bias") return check_bias(*spec, value);
  if (name == "logprobs") return number<std::int32_t>(*spec, value, {0, 20});
  if (name == "prune") return check_prune(value);
  if (name == "prefill_chunk") return check_chunk(*spec, value);
  if (const auto codec = chunk::codec_from_name(value); !codec) {
    return refuse(*spec, value, "is not one of its words");
  }
  return std::string(value);
}

Result<JobParams> resolve_params(const ParamMap& set) {
  const auto value = [&](std::string_view name) -> std::string {
    const auto it = set.find(std::string(name));
    if (it != set.end() && !it->second.empty()) return it->second;
    return std::string(find(name)->default_value);
  };
  for (const auto& [name, given] : set) KVFS_TRY(check_param(name, given));

  JobParams out;
  out.model = value("model");
  const auto mode = value("template");
  out.mode = mode == "chat"  ? TemplateMode::kChat
             : mode == "raw" ? TemplateMode::kRaw
                             : TemplateMode::kAuto;
  out.format = value("format") == "messages" ? PromptFormat::kMessages : PromptFormat::kText;
  out.max_tokens = *parse<std::int32_t>(value("max_tokens"));
  out.sampling.temperature = *parse<float>(value("temperature"));
  out.sampling.top_p = *parse<float>(value("top_p"));
  out.sampling.top_k = *parse<std::int32_t>(value("top_k"));
  out.sampling.min_p = *parse<float>(value("min_p"));
  out.sampling.repeat_penalty = *parse<float>(value("repeat_penalty"));
  out.sampling.typical = *parse<float>(value("typical"));
  out.sampling.presence_penalty = *parse<float>(value("presence_penalty"));
  out.sampling.frequency_penalty = *parse<float>(value("frequency_penalty"));
  out.sampling.logit_bias = biases_of(value("logit_bias"));
  out.logprobs = *parse<std::int32_t>(value("logprobs"));
  out.seed = parse<std::uint64_t>(value("seed"));
  out.stop = stop_strings(value("stop"));
  out.max_prefix_tokens = *parse<std::int32_t>(value("max_prefix_tokens"));
  const auto truncate = value("truncate");
  out.truncate = truncate == "head"   ? Truncate::kHead
                 : truncate == "tail" ? Truncate::kTail
                                      : Truncate::kError;
  KVFS_ASSIGN(out.codec, chunk::codec_from_name(value("codec")));
  KVFS_ASSIGN(out.prune, read_running_policy(value("prune")));
  out.prefill_chunk = *parse<std::int32_t>(value("prefill_chunk"));
  return out;
}

}  // namespace kvfs::sched
