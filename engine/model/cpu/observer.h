// Looks at a paged sequence by a plan: reads the plan's tokens on forks and adds up what their
// queries see (Observer in model.h).
#pragma once

#include <functional>
#include <memory>
#include <span>

#include "engine/model/cpu/forward.h"
#include "engine/model/cpu/paged_sequence.h"
#include "engine/model/cpu/watch.h"
#include "engine/model/model.h"

namespace kvfs::model::cpu {

class PagedObserver final : public Observer {
 public:
  // Reads some tokens of a sequence under a watch.
  using Read = std::function<Status(PagedSequence&, std::span<const TokenId>, Watch*)>;

  // kInvalid: a plan for another sequence. All but the plan must outlive the observer.
  static Result<std::unique_ptr<PagedObserver>> begin(const PageShape& shape,
                                                      const Kernels& kernels,
                                                      const Forward& forward, ForkJoin& threads,
                                                      const PagedSequence& sequence,
                                                      prune::Plan plan, Read read);

  std::int64_t tokens_read() const override { return tokens_read_; }
  Result<bool> read() override;
  Result<prune::Observation> take() override;

 private:
  PagedObserver(const PageShape& shape, const Kernels& kernels, const Forward& forward,
                ForkJoin& threads, const PagedSequence& sequence, prune::Plan plan, Read read);
  void begin_pass();

  const PageShape& shape_;
  const Kernels& kernels_;
  const Forward& forward_;
  ForkJoin& threads_;
  const PagedSequence& sequence_;
  prune::Plan plan_;
  Read read_;
  std::unique_ptr<QueryMoments> queries_;
  Watch watch_;
  std::unique_ptr<PagedSequence> again_;  // the fork that reads
  std::size_t pass_ = 0;
  std::size_t at_ = 0;  // in the pass
  std::int64_t tokens_read_ = 0;
};

}  // namespace kvfs::model::cpu
