#include "engine/sched/method_run.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <utility>

#include "engine/prune/budgets.h"
#include "engine/sched/divergence.h"
#include "engine/sched/pruning.h"

namespace kvfs::sched {
namespace {

constexpr std::size_t kShownTokens = 6;  // of each answer where the two part

// Adds the time from here to its end to a number of seconds.
class Stopwatch {
 public:
  explicit Stopwatch(double& seconds) : seconds_(seconds) {}
  ~Stopwatch() { seconds_ += std::chrono::duration<double>(Clock::now() - begin_).count(); }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

 private:
  using Clock = std::chrono::steady_clock;
  double& seconds_;
  const Clock::time_point begin_ = Clock::now();
};

std::int64_t kv_heads_of(const model::ModelInfo& info) {
  return std::accumulate(
      info.layers.begin(), info.layers.end(), std::int64_t{0},
      [](std::int64_t sum, const LayerShape& layer) { return sum + layer.kv_heads; });
}

// Where they part, in their own words.
std::optional<FirstDifference> difference(const std::vector<TokenId>& full,
                                          const std::vector<TokenId>& own,
                                          const text::Tokenizer& tokenizer) {
  const auto apart = std::ranges::mismatch(full, own);
  if (apart.in1 == full.end() && apart.in2 == own.end()) return std::nullopt;
  const auto words = [&](auto from, auto end) {
    text::Utf8Stream stream;
    std::string out;
    for (std::size_t i = 0; i < kShownTokens && from != end; ++i, ++from) {
      const auto& ends = tokenizer.end_tokens();
      if (std::ranges::find(ends, *from) != ends.end()) break;
      out += stream.push(tokenizer.bytes_of(*from));
    }
    return out;  // a character that is cut at the end is left out
  };
  return FirstDifference{static_cast<std::uint32_t>(apart.in1 - full.begin()),
                         words(apart.in1, full.end()), words(apart.in2, own.end())};
}

}  // namespace

MethodRun::MethodRun(LoadedModel& on, const JobParams& params, ComparedMethod method,
                     std::unique_ptr<model::Sequence> base)
    : on_(on), params_(params), method_(std::move(method)), cache_(std::move(base)) {}

void MethodRun::begin(ComparedTurn& turn, std::size_t index) {
  turn_ = &turn;
  result_ = {};
  result_.turn = turn.index;
  result_.method = index;
  result_.words = method_.words;
  read_ = measured_ = 0;
  surprise_ = 0;
  reply_.clear();
  text_ = std::make_unique<ReplyText>(*on_.card.tokenizer, params_.stop);
  prompt_logits_.resize(static_cast<std::size_t>(on_.model->info().vocab_size));
  const bool there = !turn.history.empty();
  stage_ = !full() && turn.prunes_before && there ? Stage::kLooking : Stage::kReading;
}

bool MethodRun::step() {
  if (!broken_) {
    if (const Status done = advance(); !done) broken_ = done.error();
  }
  if (broken_) {
    result_.error = broken_;
    observer_.reset();
    own_.reset();
    beside_.reset();
    cache_.reset();
    stage_ = Stage::kOver;
  }
  return stage_ == Stage::kOver;
}

Status MethodRun::advance() {
  switch (stage_) {
    case Stage::kLooking:
      return look();
    case Stage::kReading:
      return read();
    case Stage::kAnswering:
      return answer();
    case Stage::kMeasuring:
      return measure();
    case Stage::kOver:
      return {};
  }
  return {};
}

MethodResult MethodRun::take_result() {
  text_.reset();
  return std::move(result_);
}

ComparisonProgress MethodRun::progress() const {
  ComparisonProgress out{.words = method_.words};
  switch (stage_) {
    case Stage::kLooking:
      out.doing = "reading again";
      out.done = observer_ ? static_cast<std::uint64_t>(observer_->tokens_read()) : 0;
      out.of = result_.read_again_tokens;
      break;
    case Stage::kReading:
      out.doing = "reading";
      out.done = read_;
      out.of = turn_->prompt.size();
      break;
    case Stage::kAnswering:
      out.doing = "answering";
      out.done = reply_.size();
      out.of = static_cast<std::uint64_t>(params_.max_tokens);
      break;
    case Stage::kMeasuring:
    case Stage::kOver:
      out.doing = "measuring";
      out.done = measured_;
      out.of = turn_->reply.size();
      break;
  }
  return out;
}

// --- pruning
// ------------------------------------------------------------------------------------------------

// A share is one of all tokens, in a later turn too: what an earlier one dropped counts as dropped.
prune::Policy MethodRun::policy_now() const {
  prune::Policy policy = *method_.policy;
  prune::Amount* amount = prune::amount_of(policy.method);
  if (!pruned_ || amount == nullptr || !amount->is_share) return policy;
  const std::int64_t unit = std::holds_alternative<prune::KvZip>(policy.method)
                                ? kv_heads_of(on_.model->info())  // its count is of all heads
                                : 1;
  const auto tokens = static_cast<std::int64_t>(turn_->history.size() + read_) * unit;
  *amount = {static_cast<double>(amount->of(tokens)), false};
  return policy;
}

std::vector<TokenId> MethodRun::ids_with(std::span<const TokenId> reply) const {
  std::vector<TokenId> ids = turn_->history;
  ids.insert(ids.end(), turn_->prompt.begin(),
             turn_->prompt.begin() + static_cast<std::ptrdiff_t>(read_));
  ids.insert(ids.end(), reply.begin(), reply.end());
  return ids;
}

// As plan_pruning wants to know it: the text, where its last token stands, and whether entries were
// moved away from it.
History MethodRun::history_of(const model::Sequence& sequence,
                              std::span<const TokenId> reply) const {
  History out;
  out.ids = ids_with(reply);
  const store::VersionRecord& base = turn_->base->version;
  out.version.origin = base.origin;
  out.version.origin_detail = base.origin_detail;
  out.version.next_pos = sequence.next_pos();
  if (moved_) {
    out.version.origin = store::Origin::kPruned;
    out.version.origin_detail = with_moved(base.origin_detail, out.ids.size());
  }
  return out;
}

Status MethodRun::look() {
  const Stopwatch stopwatch(result_.prune_seconds);
  const prune::Policy policy = policy_now();
  if (!observer_) {
    KVFS_ASSIGN(prune::Plan plan,
                plan_pruning(policy, on_.card, params_.mode, history_of(*cache_, {})));
    result_.read_again_tokens = static_cast<std::uint64_t>(plan.tokens());
    KVFS_ASSIGN(observer_, on_.model->look_again(*cache_, std::move(plan)));
  }
  const std::int64_t before = observer_->tokens_read();
  const Result<bool> all = observer_->read();
  if (!all) {
    if (all.error().code != ErrorCode::kTooLarge || !on_.residency.evict_one()) {
      return fail(all.error());
    }
    observer_.reset();  // from the start, with more room
    return {};
  }
  work_.prefilled += static_cast<std::uint64_t>(observer_->tokens_read() - before);
  if (!*all) return {};
  KVFS_ASSIGN(const prune::Observation seen, observer_->take());
  observer_.reset();
  return prune(policy, seen);
}

Status MethodRun::prune(const prune::Policy& policy, const prune::Observation& seen) {
  KVFS_ASSIGN(const Pruned done, prune_sequence(on_, *cache_, policy, seen));
  pruned_ = true;
  moved_ = moved_ || done.moved > 0;
  if (read_ < turn_->prompt.size()) {
    stage_ = Stage::kReading;
  } else {
    prompt_read();
  }
  return {};
}

// As a job with params/prune does: counted from the first token that was ever generated.
Status MethodRun::refresh(model::Sequence& sequence, std::span<const TokenId> reply) {
  if (full() || !std::holds_alternative<prune::Pyramid>(method_.policy->method)) return {};
  const Refreshing refreshing = refreshing_of(method_.policy->method);
  const std::uint64_t generated = turn_->generated + reply.size();
  if (generated == 0 || generated % refreshing.every != 0) return {};
  KVFS_ASSIGN(const auto bottom, on_.model->positions(sequence, 0));
  const auto enough = [&](const auto& head) { return head.size() >= refreshing.start; };
  if (std::ranges::none_of(bottom, enough)) return {};
  const Stopwatch stopwatch(result_.prune_seconds);
  KVFS_ASSIGN(prune::Plan plan,
              plan_pruning(*method_.policy, on_.card, params_.mode, history_of(sequence, reply)));
  KVFS_TRY(prune_sequence(on_, sequence, *method_.policy, std::move(plan), {}));
  ++result_.refreshes;
  pruned_ = true;
  return {};
}

// --- the prompt
// ------------------------------------------------------------------------------------------------

Status MethodRun::read() {
  const Stopwatch stopwatch(result_.prefill_seconds);
  const std::size_t count =
      std::min(turn_->prompt.size() - read_, static_cast<std::size_t>(on_.model->prefill_slice()));
  const auto tokens = std::span<const TokenId>(turn_->prompt).subspan(read_, count);
  const bool last = read_ + count == turn_->prompt.size();
  const std::span<float> logits = last ? std::span<float>(prompt_logits_) : std::span<float>();
  const Position first = cache_->next_pos();
  const auto begin = std::chrono::steady_clock::now();
  KVFS_TRY(on_.residency.with_room([&] { return on_.model->prefill(*cache_, tokens, logits); }));
  on_.planner.read(first, count, std::chrono::steady_clock::now() - begin);
  work_.prefilled += count;
  read_ += count;
  if (!last) return {};
  if (!full() && !turn_->prunes_before) {
    stage_ = Stage::kLooking;
  } else {
    prompt_read();
  }
  return {};
}

void MethodRun::prompt_read() {
  if (full()) {
    turn_->full = on_.model->fork(*cache_);
    turn_->full_logits = prompt_logits_;
  } else {
    own_ = on_.model->fork(*cache_);
  }
  logits_ = prompt_logits_;
  stage_ = Stage::kAnswering;
}

// --- the answer
// ------------------------------------------------------------------------------------------------

Status MethodRun::answer() {
  model::Sequence& sequence = full() ? *cache_ : *own_;
  bool over = false;
  {
    const Stopwatch stopwatch(result_.generate_seconds);
    std::vector<TokenId> ids = ids_with(reply_);
    const TokenId token = model::sample(logits_, {ids, reply_.size()}, params_.sampling,
                                        static_cast<Position>(ids.size()));
    const auto& ends = on_.card.tokenizer->end_tokens();
    const bool ended = std::ranges::find(ends, token) != ends.end();
    reply_.push_back(token);
    result_.text += ended ? text_->push_end() : text_->push(token);
    const bool stopped = ended || text_->stopped();
    over = stopped || std::cmp_greater_equal(reply_.size(), params_.max_tokens) ||
           sequence.next_pos() + 1 >= on_.model->info().context_length;
    if (over) result_.finish = stopped ? "stop" : "length";
  }
  if (full()) {  // against itself
    result_.kl.push_back(static_cast<float>(divergence(logits_, logits_)));
    surprise_ -= log_probability(logits_, reply_.back());
  }
  if (over && !full()) return answered();
  KVFS_TRY(refresh(sequence, std::span(reply_).first(reply_.size() - 1)));
  if (over) {  // the last token enters the history; nobody waits for its words
    model::DecodeItem item{&sequence, reply_.back(), logits_};
    KVFS_TRY(decode({&item, 1}));
    return answered();
  }
  const Stopwatch stopwatch(result_.generate_seconds);
  model::DecodeItem item{&sequence, reply_.back(), logits_};
  return decode({&item, 1});
}

Status MethodRun::answered() {
  result_.text += text_->finish();
  result_.tokens = static_cast<std::uint32_t>(reply_.size());
  if (result_.generate_seconds > 0) {
    result_.tokens_per_second = static_cast<double>(reply_.size()) / result_.generate_seconds;
  }
  own_.reset();
  if (full()) {
    turn_->reply = reply_;
    measured_ = reply_.size();
    return conclude();
  }
  result_.differs = difference(turn_->reply, reply_, *on_.card.tokenizer);
  beside_ = on_.model->fork(*turn_->full);
  beside_logits_ = turn_->full_logits;
  logits_ = prompt_logits_;
  stage_ = Stage::kMeasuring;
  return {};
}

// One token of the full answer, by the path that generated it: full against full would be the same
// bits.
Status MethodRun::measure() {
  const TokenId token = turn_->reply[measured_];
  result_.kl.push_back(static_cast<float>(divergence(beside_logits_, logits_)));
  surprise_ -= log_probability(logits_, token);
  const std::uint32_t refreshes = result_.refreshes;
  const double seconds = result_.prune_seconds;
  KVFS_TRY(refresh(*cache_, std::span(turn_->reply).first(measured_)));
  result_.refreshes = refreshes;  // those of its own answer count
  result_.prune_seconds = seconds;
  std::vector<model::DecodeItem> items{{cache_.get(), token, logits_}};
  if (measured_ + 1 < turn_->reply.size()) items.push_back({beside_.get(), token, beside_logits_});
  KVFS_TRY(decode(items));
  ++measured_;
  return measured_ == turn_->reply.size() ? conclude() : Status{};
}

Status MethodRun::conclude() {
  beside_.reset();
  const auto count = static_cast<double>(turn_->reply.size());
  result_.mean_kl = std::accumulate(result_.kl.begin(), result_.kl.end(), 0.0) / count;
  result_.perplexity = std::exp(surprise_ / count);
  KVFS_TRY(weigh());
  stage_ = Stage::kOver;
  return {};
}

// Together, or, where the device has no room for that, one by one as others make way.
Status MethodRun::decode(std::span<model::DecodeItem> items) {
  work_.decoded += items.size();
  std::vector<Position> before;
  for (const auto& item : items) before.push_back(item.sequence->next_pos());
  if (std::cmp_less_equal(items.size(), on_.model->max_batch()) && on_.model->decode(items)) {
    return {};
  }
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (items[i].sequence->next_pos() != before[i]) {
      return fail(ErrorCode::kIo, "decode step", "the device failed half way", "compare again");
    }
    KVFS_TRY(on_.residency.with_room([&] { return on_.model->decode(items.subspan(i, 1)); }));
  }
  return {};
}

// What the cache holds now.
Status MethodRun::weigh() {
  const model::ModelInfo& info = on_.model->info();
  const auto tokens = static_cast<std::uint64_t>(cache_->next_pos());
  for (std::size_t layer = 0; layer < info.layers.size(); ++layer) {
    const LayerShape& shape = info.layers[layer];
    const std::uint64_t heads = shape.kv_heads;
    std::uint64_t entries = tokens * heads * shape.kept / kBlockTokens;
    if (info.prunes) {
      KVFS_ASSIGN(const auto positions,
                  on_.model->positions(*cache_, static_cast<std::uint16_t>(layer)));
      entries = 0;
      for (const auto& head : positions) entries += head.size();
    }
    result_.kv_bytes +=
        entries * (std::uint64_t{shape.key_width} + shape.value_width) * size_of(info.kv_dtype);
    result_.lengths.push_back(static_cast<std::uint32_t>((entries + heads / 2) / heads));
  }
  if (full()) {
    turn_->full_bytes = result_.kv_bytes;
    return {};
  }
  result_.retention =
      static_cast<double>(result_.kv_bytes) / static_cast<double>(turn_->full_bytes);
  const prune::Method& method = method_.policy->method;
  const std::int64_t of = static_cast<std::int64_t>(
      turn_->history.size() + (turn_->prunes_before ? 0 : turn_->prompt.size()));
  for (const std::int64_t budget :
       prune::budgets_of(method, static_cast<int>(info.layers.size()), of)) {
    result_.budgets.push_back(static_cast<std::uint32_t>(std::clamp<std::int64_t>(budget, 0, of)));
  }
  result_.window = prune::kept_window_of(method);
  if (const auto* pyramid = std::get_if<prune::Pyramid>(&method)) {
    result_.refresh = pyramid->refresh;
    result_.start = pyramid->start;
  }
  return {};
}

}  // namespace kvfs::sched
