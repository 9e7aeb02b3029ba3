// A model that only decodes, as one whose device draws: what it launches is done at once, and heard
// when it is asked for. Same thread as the model it wraps.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/model/model.h"

namespace kvfs::sched::test {

class AheadModel final : public model::Model {
 public:
  AheadModel(std::unique_ptr<model::Model> of, std::atomic<int>& launched)
      : of_(std::move(of)), launched_(launched) {}

  int most_ahead() const override { return 3; }
  bool draws(const model::SamplingParams&) const override { return true; }
  Status launch(std::span<const model::AheadItem> items) override {
    std::vector<TokenId> tokens;
    for (const auto& item : items) {
      auto& drawn = drawn_[item.sequence];
      if (item.token != model::kNewest) drawn.assign({item.token});
      std::vector<float> logits(static_cast<std::size_t>(info().vocab_size));
      model::DecodeItem step{item.sequence, drawn.back(), logits};
      KVFS_TRY(of_->decode({&step, 1}));
      std::vector<TokenId> history(item.said.history.begin(), item.said.history.end());
      history.insert(history.end(), drawn.end() - item.unheard, drawn.end());
      const model::Said said{history, item.said.generated + static_cast<std::size_t>(item.unheard)};
      drawn.push_back(model::sample(logits, said, *item.sampling, item.sequence->next_pos()));
      tokens.push_back(drawn.back());
    }
    steps_.push_back(std::move(tokens));
    ++launched_;
    return {};
  }
  Result<std::vector<TokenId>> hear() override {
    auto tokens = std::move(steps_.front());
    steps_.pop_front();
    return tokens;
  }

  const model::ModelInfo& info() const override { return of_->info(); }
  std::unique_ptr<model::Sequence> new_sequence() override { return of_->new_sequence(); }
  std::unique_ptr<model::Sequence> fork(const model::Sequence& sequence) override {
    return of_->fork(sequence);
  }
  Status prefill(model::Sequence& sequence, std::span<const TokenId> tokens,
                 std::span<float> logits) override {
    return of_->prefill(sequence, tokens, logits);
  }
  std::int32_t prefill_slice() const override { return of_->prefill_slice(); }
  std::int32_t prefill_alone() const override { return of_->prefill_alone(); }
  Status decode(std::span<model::DecodeItem> items) override { return of_->decode(items); }
  std::int32_t max_batch() const override { return of_->max_batch(); }
  Status truncate(model::Sequence& sequence, Position end) override {
    return of_->truncate(sequence, end);
  }
  Status prune(model::Sequence& sequence, const prune::Kept& kept) override {
    return of_->prune(sequence, kept);
  }
  Result<std::vector<std::vector<Position>>> positions(const model::Sequence& sequence,
                                                       std::uint16_t layer) override {
    return of_->positions(sequence, layer);
  }
  Result<std::unique_ptr<model::Observer>> look_again(const model::Sequence& sequence,
                                                      prune::Plan plan) override {
    return of_->look_again(sequence, std::move(plan));
  }
  Result<std::vector<KvPiece>> kv_out(const model::Sequence& sequence, std::uint16_t layer,
                                      std::int32_t block) override {
    return of_->kv_out(sequence, layer, block);
  }
  Status kv_in(model::Sequence& sequence, const KvPiece& piece) override {
    return of_->kv_in(sequence, piece);
  }
  Status set_next_pos(model::Sequence& sequence, Position next_pos) override {
    return of_->set_next_pos(sequence, next_pos);
  }
  Result<bool> kv_room(model::Sequence& sequence, Position end, bool gaps) override {
    return of_->kv_room(sequence, end, gaps);
  }
  std::uint64_t kv_bytes_used() const override { return of_->kv_bytes_used(); }
  std::uint64_t kv_bytes_budget() const override { return of_->kv_bytes_budget(); }

 private:
  std::unique_ptr<model::Model> of_;
  std::atomic<int>& launched_;  // steps
  std::unordered_map<const model::Sequence*, std::vector<TokenId>> drawn_;
  std::deque<std::vector<TokenId>> steps_;
};

}  // namespace kvfs::sched::test
