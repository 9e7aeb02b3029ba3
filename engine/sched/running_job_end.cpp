// What of a job goes to the store: its blocks, as they fill or at the end, and the end.
#include <algorithm>
#include <utility>

#include "engine/sched/running_job.h"

namespace kvfs::sched {
namespace {

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace

std::optional<Committer::End> RunningJob::cancel() {
  if (canceled_ || stage_ >= Stage::kDraining) return std::nullopt;
  canceled_ = true;
  if (stage_ != Stage::kGenerating) {
    return end(Error{ErrorCode::kCanceled, "job " + setup_.handed.record.name,
                     "it was canceled before it said anything"});
  }
  finish_ = "canceled";
  if (changes()) return std::nullopt;
  return end(std::nullopt);
}

// As the base has it, as far as it goes: of tokens that are not known it has the text alone.
Result<std::string> RunningJob::text_of(std::int32_t index,
                                        const std::vector<store::BlockToken>& tokens) const {
  std::string text;
  std::size_t there = 0;
  const auto& indices = setup_.base->indices;
  if (const auto at = std::ranges::lower_bound(indices, index);
      moved_ == 0 && at != indices.end() && *at == index) {
    const auto place = static_cast<std::size_t>(at - indices.begin());
    KVFS_ASSIGN(store::BlockRecord block, store_.block(setup_.base->version.blocks[place]));
    text = std::move(block.text);
    there = block.tokens.size();
  }
  for (std::size_t i = there; i < tokens.size(); ++i) {
    text += setup_.card->tokenizer->bytes_of(tokens[i].token);
  }
  return text;
}

Result<store::NewBlock> RunningJob::describe(std::int32_t index) {
  store::NewBlock block;
  block.index = index;
  block.tokens = block_tokens(tokens_, index, position());
  KVFS_ASSIGN(block.text, text_of(index, block.tokens));
  block.previous_key = chain_.previous(index);
  block.key = chain_.key(index, block.tokens);
  return block;
}

bool RunningJob::keeps_blocks() const { return changes() && (!prunes() || pruned_); }

// What may lose entries yet goes at the end.
Result<std::optional<Committer::Block>> RunningJob::next_block() {
  const bool growing = stage_ == Stage::kReading || stage_ == Stage::kGenerating;
  const bool settled = stage_ == Stage::kDraining || (growing && !policy_);
  if (!keeps_blocks() || !settled || !sequence_) return std::nullopt;
  const bool full = next_out_ < position() / kBlockTokens;
  if (!full && (stage_ != Stage::kDraining || drained())) return std::nullopt;

  Committer::Block out{.job = ticket(),
                       .block = store::BlockPin{},
                       .kv = nullptr,
                       .dtype = on_.model->info().kv_dtype,
                       .codec = setup_.params.codec};
  chain_.close_before(next_out_, tokens_);
  if (const auto known = known_.find(next_out_); known != known_.end()) {
    out.block = std::move(known->second);
    known_.erase(known);
  } else {
    KVFS_ASSIGN(out.block, describe(next_out_));
    KVFS_ASSIGN(out.kv, on_.model->kv_on_its_way(*sequence_, next_out_));
  }
  ++next_out_;
  return out;
}

bool RunningJob::drained() const {
  return stage_ == Stage::kDraining &&
         (!keeps_blocks() || next_out_ > (position() - 1) / kBlockTokens);
}

store::VersionRecord RunningJob::version() const {
  const auto& base = setup_.base->version;
  const auto& info = on_.model->info();
  store::VersionRecord out;
  out.model = info.name;
  out.fingerprint = info.fingerprint;
  out.kernel_class = info.kernel_class;
  out.kv_dtype = info.kv_dtype;
  out.codec = setup_.params.codec;
  out.origin = base.origin;
  out.origin_detail = base.origin_detail;
  if (pruned_) {
    out.origin = store::Origin::kPruned;
    out.origin_detail = pruned_detail_;
  }
  if (moved_ > 0) out.origin_detail = with_moved(out.origin_detail, moved_);
  if (out.origin == store::Origin::kPruned) {
    out.origin_detail = with_generated(out.origin_detail, generated_so_far());
  }
  out.next_pos = position();
  out.layers = info.layers;
  for (std::size_t i = 0; i < base.blocks.size() && !pruned_; ++i) {
    if (setup_.base->indices[i] < base.next_pos / kBlockTokens)
      out.blocks.push_back(base.blocks[i]);
  }
  return out;
}

Committer::End RunningJob::end(std::optional<Error> error) {
  enter(Stage::kEnding);
  Committer::End out{.job = ticket(), .id = setup_.handed.id, .record = setup_.handed.record};
  if (!error && generates()) append(text_.finish());
  out.reply = setup_.handed.reply;
  auto& record = out.record;
  const bool stopped = canceled_ || (error && error->code == ErrorCode::kCanceled);
  record.status = stopped ? store::JobStatus::kCanceled
                  : error ? store::JobStatus::kFailed
                          : store::JobStatus::kDone;
  record.prompt_tokens = progress_.prompt_tokens;
  record.generated_tokens = progress_.generated_tokens;
  record.known_tokens = progress_.known_tokens;
  record.prefilled_tokens = progress_.prefilled_tokens;
  record.restored_tokens = progress_.restored_tokens;
  record.recomputed_tokens = progress_.recomputed_tokens;
  record.times = times();
  record.milliseconds = static_cast<std::uint32_t>(seconds_since(began_) * 1000);
  record.finish = stopped ? "canceled" : finish_;
  if (error) record.error = error->message();
  if (!error && keeps_blocks()) out.version = version();
  out.error = std::move(error);
  return out;
}

store::JobTimes RunningJob::times() const {
  auto times = clock_.times();
  times.queued = progress_.times.queued;
  return times;
}

void RunningJob::publish() {
  progress_.started = true;
  progress_.times = times();
  progress_.reading = stage_ < Stage::kLast || (stage_ == Stage::kPruning && !prunes());
  if (sequence_ && !prunes()) {
    const std::size_t read = ids_in_sequence().size() - setup_.base->ids.size();
    progress_.read_tokens = std::min(static_cast<std::uint32_t>(read), progress_.prompt_tokens);
  }
  if (progress_.generated_tokens > 1) {
    progress_.tokens_per_second =
        (progress_.generated_tokens - 1) / std::max(seconds_since(generating_since_), 1e-6);
  }
  table_.progress(ticket(), progress_);
}

}  // namespace kvfs::sched
