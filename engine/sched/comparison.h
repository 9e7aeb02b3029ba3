// A comparison under way (compare.h): brings the state to the device once, and takes one method
// after the other through each turn.
//
// examine_comparison: any thread. ComparisonRun: engine thread only; what it is set up with
// outlives it, the loaded model stays while it lives.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <vector>

#include "engine/sched/catalog.h"
#include "engine/sched/compare.h"
#include "engine/sched/history.h"
#include "engine/sched/known_texts.h"
#include "engine/sched/loaded_models.h"
#include "engine/sched/method_run.h"
#include "engine/sched/residency.h"

namespace kvfs::sched {

inline constexpr std::chrono::minutes kComparisonPatience{15};  // for the next turn of a chat,
// once others want something

struct ComparisonSetup {
  const model::ModelCard* card = nullptr;
  JobParams params;                     // sampling.seed is set
  std::shared_ptr<const History> base;  // with the history cache
  std::vector<store::BlockPin> pins;    // of its blocks, until they are on the device
  std::uint32_t uid = 0;                // of the state's owner
  std::vector<ComparedMethod> methods;  // none: the default ones
  bool prunes_before = true;
};

// Everything that can be known before it runs, as of a job that asks: state, model, parameters,
// methods, the prompt if there is one.
Result<ComparisonSetup> examine_comparison(store::Store& store, Catalog& catalog,
                                           HistoryCache& histories, KnownTexts& known,
                                           const ComparisonRequest& request);

class ComparisonRun {
 public:
  ComparisonRun(ComparisonSetup setup, std::shared_ptr<ComparisonLink> link, KnownTexts& known);
  ~ComparisonRun();
  ComparisonRun(const ComparisonRun&) = delete;
  ComparisonRun& operator=(const ComparisonRun&) = delete;

  const model::ModelCard& card() const { return *setup_.card; }
  bool has_model() const { return on_ != nullptr; }
  bool leaves();  // without a model yet: over, where nobody waits for it any more
  void start(LoadedModel& on);
  // A slice, a step, or nothing. True: something was done.
  bool step();
  bool over() const { return over_; }
  void end(std::optional<Error> error);  // tells it; once
  MethodRun::Work take_work();

 private:
  using Clock = std::chrono::steady_clock;

  Status advance(bool& progress);
  Result<bool> arrive();
  Status next_turn(bool& progress);
  Result<ComparedTurn> make_turn(const std::string& prompt) const;
  Status begin_turn(ComparedTurn turn);
  Status choose_methods();
  Status work_on();
  void turn_over();
  void tell_progress(ComparisonProgress progress);

  ComparisonSetup setup_;
  const std::shared_ptr<ComparisonLink> link_;  // with who asks
  KnownTexts& known_;
  LoadedModel* on_ = nullptr;
  std::unique_ptr<model::Sequence> base_;
  std::vector<MethodRun> runs_;
  std::vector<TokenId> ids_;  // of the history, with all turns so far
  std::uint64_t generated_ = 0;
  std::optional<ComparedTurn> turn_;  // under way
  std::size_t turns_ = 0;
  std::size_t at_ = 0;  // in runs_
  Clock::time_point began_ = Clock::now();
  double restore_seconds_ = 0;
  Clock::time_point told_;
  Clock::time_point idle_since_ = Clock::now();
  MethodRun::Work work_;
  bool over_ = false;
};

}  // namespace kvfs::sched
