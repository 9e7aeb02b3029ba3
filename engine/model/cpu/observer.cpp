#include "engine/model/cpu/observer.h"

#include <algorithm>
#include <string>
#include <utility>

#include "engine/model/cpu/observe.h"

namespace kvfs::model::cpu {
namespace {

constexpr std::size_t kSlice = 256;

}  // namespace

Result<std::unique_ptr<PagedObserver>> PagedObserver::begin(
    const PageShape& shape, const Kernels& kernels, const Forward& forward, ForkJoin& threads,
    const PagedSequence& sequence, prune::Plan plan, Read read) {
  KVFS_TRY(prune::check_plan(plan, sequence.next_pos()));
  return std::unique_ptr<PagedObserver>(new PagedObserver(
      shape, kernels, forward, threads, sequence, std::move(plan), std::move(read)));
}

PagedObserver::PagedObserver(const PageShape& shape, const Kernels& kernels, const Forward& forward,
                             ForkJoin& threads, const PagedSequence& sequence, prune::Plan plan,
                             Read read)
    : shape_(shape),
      kernels_(kernels),
      forward_(forward),
      threads_(threads),
      sequence_(sequence),
      plan_(std::move(plan)),
      read_(std::move(read)) {
  const int heads = forward.architecture().heads;
  if (plan_.needs == prune::Needs::kExpectedQueries) {
    queries_ =
        std::make_unique<QueryMoments>(static_cast<int>(shape.layers.size()), heads, shape.width);
    watch_.queries = queries_.get();
  } else if (!plan_.passes.empty()) {
    const bool repeats = plan_.needs == prune::Needs::kReconstruction;
    watch_ = Watch::of_weights(repeats ? Watch::Fold::kHighest : Watch::Fold::kSum,
                               shape.layers.size(), heads);
  }
}

void PagedObserver::begin_pass() {
  const prune::Pass& pass = plan_.passes[pass_];
  again_ = sequence_.fork();
  again_->truncate(pass.first);
  at_ = 0;
  watch_.begin = pass.begin;
  watch_.end = pass.end;
  watch_.after = pass.first;
}

Result<bool> PagedObserver::read() {
  if (pass_ == plan_.passes.size()) return true;
  if (at_ == 0) begin_pass();
  const std::vector<TokenId>& tokens = plan_.passes[pass_].tokens;
  const std::size_t count = std::min(kSlice, tokens.size() - at_);
  KVFS_TRY(read_(*again_, std::span(tokens).subspan(at_, count), &watch_));
  at_ += count;
  tokens_read_ += static_cast<std::int64_t>(count);
  if (at_ == tokens.size()) {
    ++pass_;
    at_ = 0;
  }
  return pass_ == plan_.passes.size();
}

Result<prune::Observation> PagedObserver::take() {
  if (pass_ != plan_.passes.size()) {
    return fail(ErrorCode::kInternal, "look at what attention sees",
                "not all tokens of the plan were read");
  }
  prune::Observation seen = list_entries(shape_, sequence_);
  switch (plan_.needs) {
    case prune::Needs::kNothing:
      break;
    case prune::Needs::kKeyNorms:
      measure_keys(shape_, sequence_, threads_, seen);
      break;
    case prune::Needs::kNewestQuery:
    case prune::Needs::kWindowQueries:
    case prune::Needs::kReconstruction:
      take_weights(shape_, *again_, watch_.weights, seen);
      break;
    case prune::Needs::kAllQueries:
      take_weights(shape_, *again_, watch_.weights, seen);
      divide_by_queries(forward_.architecture(), sequence_.next_pos(), seen);
      break;
    case prune::Needs::kExpectedQueries:
      expect_weights(shape_, sequence_, kernels_, forward_, *queries_, threads_, seen);
      break;
  }
  again_.reset();
  return seen;
}

}  // namespace kvfs::model::cpu
