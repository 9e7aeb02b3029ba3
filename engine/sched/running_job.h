// One job under way: the tokens it reads, those it generates, its reply, and the blocks it hands to
// the store. It decides what comes next; the engine loop carries that out on the model.
//
// Engine thread only. The loaded model, the store and the job table outlive it.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/sched/commit.h"
#include "engine/sched/history.h"
#include "engine/sched/job_clock.h"
#include "engine/sched/job_table.h"
#include "engine/sched/kv_reader.h"
#include "engine/sched/loaded_models.h"
#include "engine/sched/prompt.h"
#include "engine/sched/pruning.h"
#include "engine/sched/reply_text.h"

namespace kvfs::sched {

class RunningJob {
 public:
  enum class Stage {
    kRestoring,   // its base is on the way to the device, or read again
    kReading,     // prefill, slice by slice
    kTaking,      // blocks found by prefix are on their way to the device
    kLast,        // the last token is computed again, for its logits
    kPruning,     // the whole state, or what was read of the prompt so far
    kGenerating,  // a sampled token waits for its decode step
    kDraining,    // blocks are on their way to the store
    kEnding,      // the end is on its way to the store
  };

  struct Setup {
    JobTable::Handed handed;
    JobParams params;
    const model::ModelCard* card = nullptr;
    std::shared_ptr<const History> base;  // with the history cache
    Prompt prompt;
    store::PrefixScope scope;
  };
  RunningJob(Setup setup, LoadedModel& on, store::Store& store, JobTable& table);
  ~RunningJob();
  RunningJob(const RunningJob&) = delete;
  RunningJob& operator=(const RunningJob&) = delete;

  Stage stage() const { return stage_; }
  JobTicket ticket() const { return setup_.handed.ticket; }
  LoadedModel& on() const { return on_; }
  const Residency::Base& base() const { return base_; }
  store::JobKind kind() const { return setup_.handed.record.kind; }
  JobTable::Lane lane() const { return JobTable::lane_of(kind()); }
  bool changes() const { return changes_state(setup_.handed.record.kind); }
  bool prunes() const { return kind() == store::JobKind::kPrune; }
  bool generates() const { return kind() != store::JobKind::kFeed && !prunes(); }
  std::uint64_t bytes_to_come() const;  // of KV that will need pages of its own

  void waits(bool for_reading);  // kRestoring: what for
  // kRestoring → kReading: the base is there, as a fork of this job's own.
  void start(std::unique_ptr<model::Sequence> sequence);
  std::unique_ptr<model::Sequence> take_sequence() { return std::move(sequence_); }
  model::Sequence& sequence() { return *sequence_; }

  // --- reading ----------------------------------------------------------------------------------
  // At the beginning of a block: how many of the tokens from here on are known by prefix (→
  // kTaking).
  Result<std::uint32_t> find_known(const std::function<void()>& wake);
  KvReader& reader() { return *reader_; }
  Status taken();  // all pieces are in: → kReading, or what follows it
  std::vector<TokenId> slice(std::int32_t at_most) const;  // next tokens to read, up to the grid
  std::span<float> logits_for(std::size_t slice_tokens);   // empty unless the slice is the last
  void slice_read(std::size_t tokens);
  // kLast: drops the last token, so that it can be computed again.
  Status drop_last();
  const store::BlockToken& last() const { return tokens_.back(); }
  std::span<float> logits();  // [vocab_size]

  // --- generating -------------------------------------------------------------------------------
  void sample_next();  // from logits(): → kGenerating, or what follows it
  TokenId pending() const { return ids_.back(); }
  void decoded();  // the pending token is in the sequence, and logits() are after it
  // Where the device draws (model::AheadItem): steps that may be launched now, one launched, and
  // one heard. The job knows nothing of what was launched and not heard: position() does not count
  // it. Not where a refresh looks at each step, or a draw goes by another number than the position.
  bool draws_ahead() const;
  std::int64_t steps_to_launch() const;
  model::AheadItem next_step() const;
  void launched() { ++ahead_; }
  bool ahead() const { return ahead_ > 0; }
  Status heard(TokenId token);

  // --- pruning ----------------------------------------------------------------------------------
  // By what the sequence is to be pruned now: as a whole (kPruning), or, at a refresh, before the
  // pending token is computed. Null: by nothing.
  const prune::Policy* policy_now();
  // Where the step's query is all that the method looks at and a refresh is due after it: what is
  // to be told of that step. Null: nothing.
  prune::Observation* look();
  // What it was told of the newest token's step; nothing: it has to be read again.
  std::optional<prune::Observation> take_seen();
  // What that has to read again, and how far that is.
  Result<prune::Plan> plan_now() const;
  void read_again(std::int64_t tokens);
  Status pruned(const Pruned& what);  // kPruning → what follows it

  // --- ending -----------------------------------------------------------------------------------
  // The user's word. The end when the job stops here and now; nullopt when it stops by itself after
  // the next step, or is past stopping.
  std::optional<Committer::End> cancel();
  // The next block that can go to the store; nullopt when there is none yet.
  Result<std::optional<Committer::Block>> next_block();
  bool drained() const;
  Committer::End end(std::optional<Error> error);  // → kEnding

  void publish();  // progress to the job table

 private:
  using Clock = std::chrono::steady_clock;

  void enter(Stage stage);
  store::JobTimes times() const;
  Position position() const { return sequence_->next_pos() - ahead_; }
  std::optional<store::BlockPin> find_block(std::int32_t index, const BlockKey& key,
                                            const std::vector<store::BlockToken>& tokens);
  void after_reading();
  void go_on_with(TokenId token);
  void tell(TokenId token, bool ended);
  std::span<const TokenId> ids_in_sequence() const;  // not those to be read, nor the pending one
  Position piece_end() const;  // where reading stops to prune, or at the prompt's end
  bool at_piece_end() const;
  void read_on();  // tokens came in
  void tell_refresh(const Pruned& what);
  void append(std::string_view text);      // to the reply
  std::uint64_t generated_so_far() const;  // that the sequence holds
  bool keeps_blocks() const;
  Result<std::string> text_of(std::int32_t index,
                              const std::vector<store::BlockToken>& tokens) const;
  Result<store::NewBlock> describe(std::int32_t index);
  store::VersionRecord version() const;

  Setup setup_;
  LoadedModel& on_;
  store::Store& store_;
  JobTable& table_;
  Stage stage_ = Stage::kRestoring;
  std::unique_ptr<model::Sequence> sequence_;

  std::vector<store::BlockToken> tokens_;  // history, prompt, generated
  std::vector<TokenId> ids_;               // the same
  Position read_end_ = 0;                  // position after the prompt
  std::vector<float> logits_;              // [vocab_size]
  ReplyText text_;
  std::size_t said_ = 0;                 // tokens at the history's end that were generated in a run
  std::vector<model::Logprobs> untold_;  // of generated tokens whose text is held back
  std::size_t told_ = 0;
  int ahead_ = 0;  // steps launched and not heard
  KeyChain chain_;
  std::map<std::int32_t, store::BlockPin> known_;  // found by prefix, not yet handed over
  std::unique_ptr<KvReader> reader_;
  Position taking_in_ = 0;  // up to here; what stands after taking_to_ is dropped again
  Position taking_to_ = 0;
  std::int32_t looked_up_ = -1;  // block whose prefix was looked for last
  std::int32_t next_out_ = 0;    // block to hand to the store next
  std::string finish_;           // how it will end, once that is known
  bool canceled_ = false;
  std::optional<prune::Policy> policy_;
  bool pruned_ = false;        // something, in this job: all blocks are new
  std::string pruned_detail_;  // of the version that comes of it
  std::uint64_t moved_ = 0;    // tokens of the text when entries were moved, in this job; 0: never
  std::uint64_t looked_at_ = 0;  // generated tokens when a refresh was due last
  prune::Observation seen_;
  std::uint64_t seen_at_ = 0;  // generated tokens after its step
  std::uint64_t generated_before_;
  Residency::Base base_;
  const std::uint64_t arrivals_before_;  // versions that had come to the device by then

  JobTable::Progress progress_;
  JobClock clock_;
  Clock::time_point began_ = Clock::now();
  Clock::time_point generating_since_;
};

}  // namespace kvfs::sched
