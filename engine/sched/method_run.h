// One method of a comparison (compare.h): its cache, and its way through a turn, a slice or a step
// at a time.
//
// Engine thread only. The model, the turn and what it stands on outlive it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/model/model.h"
#include "engine/sched/compare.h"
#include "engine/sched/history.h"
#include "engine/sched/loaded_models.h"
#include "engine/sched/reply_text.h"

namespace kvfs::sched {

// What all methods of a turn have in common. The full one fills in the rest.
struct ComparedTurn {
  std::size_t index = 0;
  std::shared_ptr<const History> base;  // what the comparison began on; with the history cache
  std::vector<TokenId> history;         // before the prompt, −1 where unknown
  std::vector<TokenId> prompt;          // one at least
  std::uint64_t generated = 0;          // tokens of the history that were
  bool prunes_before = true;
  // By the full method:
  std::vector<TokenId> reply;             // its end token included
  std::unique_ptr<model::Sequence> full;  // its cache with the prompt in it
  std::vector<float> full_logits;         // [vocab], after the prompt
  std::uint64_t full_bytes = 0;           // of its cache with the reply
};

class MethodRun {
 public:
  struct Work {  // for the daemon's counters
    std::uint64_t prefilled = 0;
    std::uint64_t decoded = 0;
  };
  MethodRun(LoadedModel& on, const JobParams& params, ComparedMethod method,
            std::unique_ptr<model::Sequence> base);

  const std::string& words() const { return method_.words; }
  void begin(ComparedTurn& turn, std::size_t index);
  // True: the turn is over. An error is in the result; the method's later turns say it again.
  bool step();
  MethodResult take_result();
  ComparisonProgress progress() const;
  Work take_work() { return std::exchange(work_, {}); }
  void release() { cache_.reset(); }  // no turn follows

 private:
  enum class Stage { kLooking, kReading, kAnswering, kMeasuring, kOver };
  bool full() const { return !method_.policy; }
  Status advance();
  Status look();
  Status prune(const prune::Policy& policy, const prune::Observation& seen);
  Status read();
  void prompt_read();
  Status answer();
  Status answered();
  Status measure();
  Status conclude();
  Status refresh(model::Sequence& sequence, std::span<const TokenId> reply);
  Status decode(std::span<model::DecodeItem> items);
  prune::Policy policy_now() const;
  std::vector<TokenId> ids_with(std::span<const TokenId> reply) const;
  History history_of(const model::Sequence& sequence, std::span<const TokenId> reply) const;
  Status weigh();

  LoadedModel& on_;
  const JobParams& params_;
  const ComparedMethod method_;
  std::unique_ptr<model::Sequence> cache_;  // of all turns; null after release()
  std::optional<Error> broken_;
  bool pruned_ = false;
  bool moved_ = false;  // by positions=compact

  // Of the turn.
  ComparedTurn* turn_ = nullptr;
  Stage stage_ = Stage::kOver;
  MethodResult result_;
  Work work_;
  std::unique_ptr<model::Observer> observer_;
  std::size_t read_ = 0;                  // of the prompt
  std::vector<float> prompt_logits_;      // [vocab]
  std::unique_ptr<model::Sequence> own_;  // that answers; full: null, its cache does
  std::vector<float> logits_;             // [vocab]
  std::vector<TokenId> reply_;            // own
  std::unique_ptr<ReplyText> text_;
  std::unique_ptr<model::Sequence> beside_;  // the full cache, while measuring
  std::vector<float> beside_logits_;         // [vocab]
  std::size_t measured_ = 0;                 // tokens of the full reply
  double surprise_ = 0;                      // −Σ ln p of them
};

}  // namespace kvfs::sched
