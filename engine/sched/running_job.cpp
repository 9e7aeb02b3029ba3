#include "engine/sched/running_job.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace kvfs::sched {
namespace {

// A reply that was stopped and goes on is one reply to the penalties.
std::size_t generated_at_end(const std::vector<store::BlockToken>& tokens) {
  std::size_t count = 0;
  while (count < tokens.size() && tokens[tokens.size() - 1 - count].path == TokenPath::kGenerated) {
    ++count;
  }
  return count;
}

// Reading its tokens gives the bits of its KV: the chain says that they were computed from them
// here.
bool recomputable(const History& base, const KeyChain& chain, bool one_path) {
  return base.id && chain.intact() &&
         std::ranges::all_of(base.tokens, [&](const store::BlockToken& token) {
           return token.token >= 0 && (one_path || token.path == TokenPath::kRead);
         });
}

std::uint32_t milliseconds_since(std::int64_t wall_ns) {
  using std::chrono::milliseconds, std::chrono::nanoseconds;
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto passed = std::chrono::duration_cast<milliseconds>(now - nanoseconds(wall_ns)).count();
  return static_cast<std::uint32_t>(std::clamp<std::int64_t>(passed, 0, UINT32_MAX));
}

}  // namespace

RunningJob::RunningJob(Setup setup, LoadedModel& on, store::Store& store, JobTable& table)
    : setup_(std::move(setup)),
      on_(on),
      store_(store),
      table_(table),
      tokens_(setup_.base->tokens),
      ids_(setup_.base->ids),
      read_end_(setup_.base->version.next_pos),
      logits_(static_cast<std::size_t>(on.model->info().vocab_size)),
      text_(*setup_.card->tokenizer, setup_.params.stop),
      chain_(*setup_.base, setup_.scope, on.model->info().one_path),
      next_out_(setup_.base->version.next_pos / kBlockTokens),
      policy_(kind() == store::JobKind::kFeed && setup_.params.prefill_chunk == 0
                  ? std::nullopt
                  : setup_.params.prune),
      generated_before_(generated_in(*setup_.base)),
      base_{setup_.base, recomputable(*setup_.base, chain_, on.model->info().one_path)},
      arrivals_before_(on.residency.arrivals()) {
  if (setup_.prompt.ids.empty()) said_ = generated_at_end(tokens_);
  for (const TokenId id : setup_.prompt.ids) {
    tokens_.push_back({id, read_end_++, TokenPath::kRead});
    ids_.push_back(id);
  }
  setup_.params.sampling.seed = setup_.handed.record.seed;
  const auto& record = setup_.handed.record;
  progress_.prompt_tokens =
      prunes() ? record.prompt_tokens : static_cast<std::uint32_t>(setup_.prompt.ids.size());
  progress_.times.queued = milliseconds_since(setup_.handed.record.submitted_ns);
  ++on_.jobs;
}

RunningJob::~RunningJob() { --on_.jobs; }

std::uint64_t RunningJob::bytes_to_come() const {
  const store::VersionRecord& base = setup_.base->version;
  const std::int64_t more = generates() ? setup_.params.max_tokens : 0;
  const std::int64_t end =
      std::min(read_end_ + more, std::int64_t{on_.model->info().context_length});
  const std::int64_t here = sequence_ ? position() : base.next_pos;
  const bool there = sequence_ || on_.residency.holds(setup_.base->id);
  auto tokens = static_cast<std::uint64_t>(std::max<std::int64_t>(end - here, 0));
  if (const std::int64_t chunk = setup_.params.prefill_chunk; chunk > 0 && policy_ && !prunes()) {
    // Never more than a piece and what pruning leaves.
    const std::int64_t most = chunk + entries_left(policy_->method, end);
    tokens = std::min(tokens, static_cast<std::uint64_t>(most));
  }
  return (tokens + kBlockTokens) * on_.token_bytes() + (there ? 0 : base.kv_bytes);
}

void RunningJob::start(std::unique_ptr<model::Sequence> sequence) {
  sequence_ = std::move(sequence);
  if (const auto how = on_.residency.arrival(setup_.base->id); how.number > arrivals_before_) {
    progress_.restored_tokens = how.restored_tokens;
    progress_.recomputed_tokens = how.recomputed_tokens;
  }
  after_reading();
  if (!prunes()) return;
  const std::string again = reading_words(progress_.prompt_tokens);
  if (!again.empty()) append(again + "\n");
}

void RunningJob::waits(bool for_reading) {
  clock_.spend_on(for_reading ? JobClock::Part::kRecompute : JobClock::Part::kRestore);
}

void RunningJob::enter(Stage stage) {
  stage_ = stage;
  switch (stage) {
    case Stage::kRestoring:
      return clock_.spend_on(JobClock::Part::kRestore);
    case Stage::kReading:
      return clock_.spend_on(JobClock::Part::kRead);
    case Stage::kTaking:
      return clock_.spend_on(JobClock::Part::kKnown);
    case Stage::kPruning:
      return clock_.spend_on(prunes() ? JobClock::Part::kGenerate : JobClock::Part::kRead);
    case Stage::kLast:
    case Stage::kGenerating:
      return clock_.spend_on(JobClock::Part::kGenerate);
    case Stage::kDraining:
    case Stage::kEnding:
      return clock_.spend_on(JobClock::Part::kSave);
  }
}

// --- reading
// ----------------------------------------------------------------------------------------

void RunningJob::after_reading() {
  enter(position() < read_end_ ? Stage::kReading
        : generates()          ? Stage::kLast
        : prunes()             ? Stage::kPruning
                               : Stage::kDraining);
}

// By the tokens that the state then has, whatever came in which job: so 300 and then 100 are read
// like 400.
Position RunningJob::piece_end() const {
  const auto chunk = static_cast<std::size_t>(setup_.params.prefill_chunk);
  if (!policy_ || chunk == 0 || prunes()) return read_end_;
  const std::size_t left = chunk - ids_in_sequence().size() % chunk;
  return std::min(read_end_, position() + static_cast<Position>(left));
}

bool RunningJob::at_piece_end() const {
  const auto chunk = static_cast<std::size_t>(setup_.params.prefill_chunk);
  return policy_ && chunk > 0 && !prunes() && ids_in_sequence().size() % chunk == 0;
}

void RunningJob::read_on() {
  if (at_piece_end()) {
    enter(Stage::kPruning);
  } else {
    after_reading();
  }
}

std::optional<store::BlockPin> RunningJob::find_block(
    std::int32_t index, const BlockKey& key, const std::vector<store::BlockToken>& tokens) {
  const auto id = store_.find_prefix(chain_.previous(index), key, tokens);
  return id ? store_.pin(*id) : std::nullopt;
}

Result<std::uint32_t> RunningJob::find_known(const std::function<void()>& wake) {
  std::int32_t index = position() / kBlockTokens;
  if (index <= looked_up_ || !chain_.intact()) return 0U;
  looked_up_ = index;
  std::vector<store::BlockRecord> found;
  std::vector<Planner::Block> missing;
  Position covered = position();
  const Position wanted = piece_end();
  while (covered < wanted) {
    const auto block_is = block_tokens(tokens_, index, wanted);
    chain_.close_before(index, tokens_);
    auto pin = find_block(index, chain_.key(index, block_is), block_is);
    Position end = block_is.back().position + 1, in = end;
    // A block that begins as this one does: its first tokens are of use.
    const auto& part = setup_.prompt.known;
    if (!pin && part && part->index == index && part->end > covered && part->end <= wanted &&
        on_.model->info().one_path) {
      pin = find_block(index, part->key, part->tokens);
      in = part->tokens.back().position + 1;
      end = part->end;
    }
    if (!pin) break;
    KVFS_ASSIGN(auto block, store_.block(pin->id()));
    known_.insert_or_assign(index, *std::move(pin));
    missing.push_back({covered, end, store::decoded_bytes(block)});
    found.push_back(std::move(block));
    covered = taking_to_ = end;
    taking_in_ = in;
    ++index;
    if (in != end || end % kBlockTokens != 0) break;
  }
  if (const std::size_t read = on_.planner.blocks_to_read(missing); read > 0) {
    // Sooner read: it is not looked for again before that is done.
    known_.erase(known_.lower_bound(looked_up_), known_.end());
    looked_up_ += static_cast<std::int32_t>(read) - 1;
    return 0U;
  }
  if (found.empty()) return 0U;
  const auto tokens = static_cast<std::uint32_t>(covered - position());
  progress_.known_tokens += tokens;
  // What is on the device of a block that is taken whole makes way for it.
  KVFS_TRY(on_.model->truncate(*sequence_, found.front().index * kBlockTokens));
  reader_ = std::make_unique<KvReader>(store_, found, wake);
  enter(Stage::kTaking);
  return tokens;
}

Status RunningJob::taken() {
  reader_.reset();
  KVFS_TRY(on_.model->set_next_pos(*sequence_, taking_in_));
  if (taking_to_ < taking_in_) KVFS_TRY(on_.model->truncate(*sequence_, taking_to_));
  // It will grow into another block.
  if (generates() || taking_to_ < read_end_) known_.erase(taking_to_ / kBlockTokens);
  read_on();
  return {};
}

std::vector<TokenId> RunningJob::slice(std::int32_t at_most) const {
  const Position begin = position();
  Position end = std::min(begin + at_most, piece_end());
  if (const Position grid = end / kBlockTokens * kBlockTokens; end < read_end_ && grid > begin) {
    end = grid;
  }
  const auto first = ids_.end() - (read_end_ - begin);
  return {first, first + (end - begin)};
}

std::span<float> RunningJob::logits_for(std::size_t slice_tokens) {
  const auto count = static_cast<Position>(slice_tokens);
  if (position() + count != read_end_ || !generates()) return {};
  // Where the end is a piece's too, they are computed again of what pruning leaves.
  const auto chunk = static_cast<std::size_t>(setup_.params.prefill_chunk);
  const bool prunes_there = policy_ && chunk > 0 && ids_.size() % chunk == 0;
  return prunes_there ? std::span<float>{} : logits();
}

void RunningJob::slice_read(std::size_t tokens) {
  progress_.prefilled_tokens += static_cast<std::uint32_t>(tokens);
  if (position() == read_end_ && generates() && !at_piece_end()) {
    sample_next();
  } else {
    read_on();
  }
}

Status RunningJob::drop_last() {
  if (last().token < 0) {
    return fail(ErrorCode::kUnsupported, "job " + setup_.handed.record.name,
                "the state's last token is not known, so it cannot go on from it",
                "use continue with some text");
  }
  return on_.model->truncate(*sequence_, position() - 1);
}

std::span<float> RunningJob::logits() { return logits_; }

// --- generating
// -------------------------------------------------------------------------------------

void RunningJob::sample_next() {
  if (progress_.generated_tokens == 0) generating_since_ = Clock::now();
  go_on_with(model::sample(logits_, {ids_, said_}, setup_.params.sampling,
                           static_cast<Position>(ids_.size())));
}

void RunningJob::go_on_with(TokenId token) {
  tokens_.push_back({token, position(), TokenPath::kGenerated});
  ids_.push_back(token);
  ++said_;
  ++progress_.generated_tokens;
  const auto& ends = setup_.card->tokenizer->end_tokens();
  const bool ended = std::ranges::find(ends, token) != ends.end();
  tell(token, ended);
  if (ended || text_.stopped()) {
    finish_ = "stop";
  } else if (std::cmp_greater_equal(progress_.generated_tokens, setup_.params.max_tokens) ||
             position() + 1 >= on_.model->info().context_length) {
    finish_ = "length";
  }
  // The last token's KV is of use to a state alone.
  enter(finish_.empty() || changes() ? Stage::kGenerating : Stage::kDraining);
}

void RunningJob::tell(TokenId token, bool ended) {
  const std::int32_t top = setup_.params.logprobs;
  if (top > 0) {
    untold_.push_back(model::logprobs_of(logits_, token, static_cast<std::size_t>(top)));
  }
  append(ended ? text_.push_end() : text_.push(token));
}

void RunningJob::append(std::string_view text) {
  std::vector<model::Logprobs> shown;
  if (const std::size_t count = text_.tokens_shown() - told_; count > 0 && !untold_.empty()) {
    const auto end = untold_.begin() + static_cast<std::ptrdiff_t>(count);
    shown.assign(std::make_move_iterator(untold_.begin()), std::make_move_iterator(end));
    untold_.erase(untold_.begin(), end);
  }
  told_ = text_.tokens_shown();
  setup_.handed.reply->append(text, std::move(shown));
}

void RunningJob::decoded() {
  if (finish_.empty()) {
    sample_next();
  } else {
    enter(Stage::kDraining);
  }
}

// --- ahead of what is known
// ----------------------------------------------------------------------------------------

bool RunningJob::draws_ahead() const {
  const bool moved =
      !std::cmp_equal(ids_.size(), position() + 1);  // a draw goes by the ids' number
  return !policy_ && !moved && setup_.params.logprobs == 0 &&
         on_.model->draws(setup_.params.sampling);
}

std::int64_t RunningJob::steps_to_launch() const {
  if (!finish_.empty()) return ahead() ? 0 : 1;  // for the last token's KV
  const std::int64_t tokens =
      std::min<std::int64_t>(setup_.params.max_tokens - std::int64_t{progress_.generated_tokens},
                             on_.model->info().context_length - 1 - position());
  return tokens + (changes() ? 1 : 0) - ahead_;
}

model::AheadItem RunningJob::next_step() const {
  return {.sequence = sequence_.get(),
          .token = ahead() ? model::kNewest : pending(),
          .sampling = &setup_.params.sampling,
          .said = {ids_, said_},
          .unheard = ahead_};
}

Status RunningJob::heard(TokenId token) {
  --ahead_;
  const bool ended = !finish_.empty();  // canceled: this step was for the last token's KV
  if (ended) {
    enter(Stage::kDraining);
  } else {
    go_on_with(token);
    if (finish_.empty() || !ahead()) return {};
    if (changes()) enter(Stage::kDraining);  // the next step, under way, has the last token's KV
  }
  const Position end = position() + (ended ? 0 : 1);
  ahead_ = 0;
  return on_.model->truncate(*sequence_, end);
}

}  // namespace kvfs::sched
