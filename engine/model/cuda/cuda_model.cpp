#include "engine/model/cuda/cuda_model.h"

#include <c10/cuda/CUDAGuard.h>

#include <algorithm>
#include <string>

#include "engine/model/cuda/make_model.h"
#include "engine/model/cuda/pages_out.h"

namespace kvfs::model::cuda {
namespace {

constexpr int kSliceGrids = 4;  // of 512 tokens: an 8B on an H200 reads them in 55 ms

class CudaModel final : public Model {
 public:
  CudaModel(ModelInfo info, ObservedModel observed, std::unique_ptr<Forward> forward,
            const PageShape& pages, at::Device device, c10::cuda::CUDAStream stream,
            std::uint64_t budget)
      : info_(std::move(info)),
        observed_(std::move(observed)),
        device_(device),
        stream_(stream),
        pool_(pages, device, budget),
        pages_out_(pages, device.index()),
        forward_(std::move(forward)) {
    // Pins its memory now rather than in the first restore, which tries again if there is none.
    (void)pool_.transfers().open(stream_);
  }

  const ModelInfo& info() const override { return info_; }
  std::unique_ptr<Sequence> new_sequence() override {
    return std::make_unique<DeviceSequence>(pool_);
  }
  std::unique_ptr<Sequence> fork(const Sequence& sequence) override { return of(sequence).fork(); }

  Status prefill(Sequence& sequence, std::span<const TokenId> tokens,
                 std::span<float> logits) override {
    const std::string what = "read " + std::to_string(tokens.size()) + " tokens";
    KVFS_TRY(check_step(what, sequence, tokens, logits));
    return read(what, of(sequence), tokens, logits, nullptr);
  }
  std::int32_t prefill_slice() const override {
    return kGridRows * std::min(forward_->most_grids(), kSliceGrids);
  }
  std::int32_t prefill_alone() const override { return kGridRows * forward_->most_grids(); }

  Status decode(std::span<DecodeItem> items) override {
    const std::string what = "generate " + std::to_string(items.size()) + " tokens";
    if (items.empty() || items.size() > kMaxBatch) {
      return fail(ErrorCode::kInvalid, what,
                  "wanted 1 to " + std::to_string(kMaxBatch) + " sequences");
    }
    for (const DecodeItem& item : items) {
      KVFS_TRY(check_step(what, *item.sequence, {&item.token, 1}, item.logits));
    }
    const Status done = guarded(what, [&]() -> Status {
      const c10::cuda::CUDAStreamGuard guard(stream_);
      std::vector<Forward::Row> rows;
      for (const DecodeItem& item : items) {
        KVFS_TRY(of(*item.sequence).reserve(1));
        rows.push_back({&of(*item.sequence), item.token, item.logits});
      }
      for (const DecodeItem& item : items) of(*item.sequence).begin_step(1);
      forward_->generate(rows);
      return {};
    });
    for (const DecodeItem& item : items) end_step(of(*item.sequence), done.has_value());
    KVFS_TRY(done);
    // The newest query is looked at again, on a fork: no bits of the step change.
    for (const DecodeItem& item : items) {
      if (item.seen == nullptr) continue;
      KVFS_ASSIGN(*item.seen,
                  observe(*item.sequence, prune::Needs::kNewestQuery, {&item.token, 1}));
    }
    return {};
  }
  std::int32_t max_batch() const override { return kMaxBatch; }

  int most_ahead() const override { return forward_->most_ahead(); }
  bool draws(const SamplingParams& sampling) const override {
    return sampling.typical == 1.0F && info_.vocab_size <= 1 << 19;  // DrawStep's
  }
  Status launch(std::span<const AheadItem> items) override {
    const std::string what = "generate " + std::to_string(items.size()) + " tokens ahead";
    if (items.empty() || items.size() > kMaxBatch) {
      return fail(ErrorCode::kInvalid, what,
                  "wanted 1 to " + std::to_string(kMaxBatch) + " sequences");
    }
    for (const AheadItem& item : items) {
      const TokenId token = std::max(item.token, TokenId{0});
      KVFS_TRY(check_step(what, *item.sequence, {&token, 1}, {}));
    }
    const Status done = guarded(what, [&]() -> Status {
      const c10::cuda::CUDAStreamGuard guard(stream_);
      std::vector<Forward::AheadRow> rows;
      for (const AheadItem& item : items) {
        KVFS_TRY(of(*item.sequence).reserve(1));
        rows.push_back({&of(*item.sequence), &item});
      }
      forward_->launch(rows);
      return {};
    });
    for (const AheadItem& item : items) end_step(of(*item.sequence), done.has_value());
    return done;
  }
  Result<std::vector<TokenId>> hear() override {
    return guarded("hear of generated tokens", [&]() -> Result<std::vector<TokenId>> {
      const c10::cuda::CUDAStreamGuard guard(stream_);
      return forward_->hear();
    });
  }

  Status truncate(Sequence& sequence, Position end) override {
    DeviceSequence& mine = of(sequence);
    if (end < 0 || end > mine.next_pos()) {
      return fail(
          ErrorCode::kInvalid, "truncate a sequence",
          "it has " + std::to_string(mine.next_pos()) + " tokens, not " + std::to_string(end));
    }
    if (!mine.can_go_back(end)) {
      return fail(ErrorCode::kUnsupported, "truncate a sequence to " + std::to_string(end),
                  "its convolutions' inputs before that are gone",
                  "go back by one token, or to the beginning of a block");
    }
    mine.truncate(end);
    return {};
  }
  Result<std::vector<KvPiece>> kv_out(const Sequence& sequence, std::uint16_t layer,
                                      std::int32_t block) override {
    return guarded("read KV from the device", [&]() -> Result<std::vector<KvPiece>> {
      const c10::cuda::CUDAStreamGuard guard(stream_);
      return of(sequence).read(layer, block);
    });
  }
  Result<std::unique_ptr<KvOut>> kv_on_its_way(const Sequence& sequence,
                                               std::int32_t block) override {
    const DeviceSequence& from = of(sequence);
    const Position begin = block * kBlockTokens;
    const int count = std::min(kBlockTokens, from.next_pos() - begin);
    if (block < 0 || count <= 0) {
      return fail(ErrorCode::kInvalid, "take KV out", "there is no block " + std::to_string(block));
    }
    // A pruned page's entries are listed here, and inputs that are gone are named.
    if (from.page(block)->sparse || !from.keeps(block, pool_.shape().kept))
      return Model::kv_on_its_way(sequence, block);
    return pages_out_.send(from.page(block), begin, count, stream_);
  }
  Status kv_in(Sequence& sequence, const KvPiece& piece) override {
    return guarded("put KV on the device", [&]() -> Status {
      const c10::cuda::CUDAStreamGuard guard(stream_);
      return of(sequence).write(piece);
    });
  }
  bool takes_stored() const override { return true; }
  Status stored_in(Sequence& sequence, const chunk::StoredPiece& piece) override {
    return guarded("put KV on the device", [&] { return of(sequence).write(piece); });
  }
  Result<bool> kv_room(Sequence& sequence, Position end, bool gaps) override {
    const std::string what = "make room for KV up to " + std::to_string(end);
    if (gaps && pool_.shape().convolves()) {
      return fail(ErrorCode::kUnsupported, "make room for pruned KV",
                  "a model with convolutions takes whole blocks only");
    }
    if (gaps) return false;  // how much is known when all of it has come
    return guarded(what, [&]() -> Result<bool> {
      const c10::cuda::CUDAStreamGuard guard(stream_);
      KVFS_TRY(of(sequence).open_room(end));
      return true;
    });
  }
  Status set_next_pos(Sequence& sequence, Position next_pos) override {
    return guarded("put KV on the device", [&]() -> Status {
      const c10::cuda::CUDAStreamGuard guard(stream_);
      return of(sequence).set_next_pos(next_pos);
    });
  }

  Status prune(Sequence& sequence, const prune::Kept& kept) override {
    return guarded("prune a sequence", [&]() -> Status {
      const c10::cuda::CUDAStreamGuard guard(stream_);
      return of(sequence).prune(kept);
    });
  }
  Status compact(Sequence& sequence) override {
    if (pool_.shape().convolves()) {
      return fail(ErrorCode::kUnsupported, "move entries to other positions",
                  "the model has layers with convolutions, which have no entries",
                  "prune states of models with attention only");
    }
    DeviceSequence& mine = of(sequence);
    std::vector<std::vector<std::vector<Position>>> positions;
    for (int layer = 0; layer < observed_.layers(); ++layer)
      positions.push_back(mine.positions(layer));
    KVFS_ASSIGN(const Places to,
                find_places(std::move(positions), mine.next_pos(), observed_.turnable));
    if (!to.moves()) return {};
    return guarded("move entries to other positions", [&]() -> Status {
      const c10::cuda::CUDAStreamGuard guard(stream_);
      return mine.compact(to, observed_.turnings);
    });
  }
  Result<std::vector<std::vector<Position>>> positions(const Sequence& sequence,
                                                       std::uint16_t layer) override {
    if (layer >= observed_.layers() || pool_.shape().convolves(layer)) {
      return fail(ErrorCode::kInvalid, "list the entries of layer " + std::to_string(layer),
                  "the model has no such layer that attends");
    }
    return of(sequence).positions(layer);
  }
  Result<std::unique_ptr<Observer>> look_again(const Sequence& sequence,
                                               prune::Plan plan) override {
    if (pool_.shape().convolves()) {
      return fail(ErrorCode::kUnsupported, "look at what attention sees",
                  "the model has layers with convolutions, which have no entries",
                  "prune states of models with attention only");
    }
    return make_observer(
        observed_, of(sequence), std::move(plan), device_,
        [this](DeviceSequence& fork, std::span<const TokenId> tokens, const Watch& watch) {
          const std::string what = "read " + std::to_string(tokens.size()) + " tokens again";
          return read(what, fork, tokens, {}, &watch);
        },
        [this](const std::function<Status()>& work) {
          return guarded("look at what attention sees", [&]() -> Status {
            const c10::cuda::CUDAStreamGuard guard(stream_);
            return work();
          });
        });
  }
  std::uint64_t kv_bytes_used() const override { return pool_.used(); }
  std::uint64_t kv_bytes_budget() const override { return pool_.budget(); }

 private:
  static void end_step(DeviceSequence& sequence, bool done) {
    if (done) {
      sequence.advance(1);
    } else {
      sequence.truncate(sequence.next_pos());  // gives back what was reserved
    }
  }
  Status read(const std::string& what, DeviceSequence& mine, std::span<const TokenId> tokens,
              std::span<float> logits, const Watch* watch) {
    const Position before = mine.next_pos();
    const Status done = guarded(what, [&]() -> Status {
      const c10::cuda::CUDAStreamGuard guard(stream_);
      KVFS_TRY(mine.reserve(static_cast<int>(tokens.size())));
      while (!tokens.empty()) {
        const auto room = static_cast<std::size_t>(kGridRows * forward_->most_grids() -
                                                   mine.next_pos() % kGridRows);
        const auto slice = tokens.first(std::min(tokens.size(), room));
        tokens = tokens.subspan(slice.size());
        mine.begin_step(static_cast<int>(slice.size()));
        forward_->read(mine, slice, tokens.empty() ? logits : std::span<float>{}, watch);
        mine.advance(static_cast<int>(slice.size()));
      }
      return {};
    });
    if (!done)
      mine.truncate(mine.can_go_back(before) ? before : before / kBlockTokens * kBlockTokens);
    return done;
  }
  static DeviceSequence& of(Sequence& sequence) { return static_cast<DeviceSequence&>(sequence); }
  static const DeviceSequence& of(const Sequence& sequence) {
    return static_cast<const DeviceSequence&>(sequence);
  }
  Status check_step(const std::string& what, const Sequence& sequence,
                    std::span<const TokenId> tokens, std::span<const float> logits) const {
    if (tokens.empty()) return fail(ErrorCode::kInvalid, what, "there are none");
    const auto left = static_cast<std::size_t>(info_.context_length - sequence.next_pos());
    if (tokens.size() > left) {
      return fail(ErrorCode::kTooLarge, what,
                  "the context of " + std::to_string(info_.context_length) + " leaves " +
                      std::to_string(left),
                  "shorten the text or start from a shorter state");
    }
    if (!logits.empty() && logits.size() != static_cast<std::size_t>(info_.vocab_size)) {
      return fail(ErrorCode::kInternal, what, "room for logits is not the vocabulary's size");
    }
    for (const TokenId token : tokens) {
      if (token < 0 || token >= info_.vocab_size) {
        return fail(
            ErrorCode::kInvalid, what,
            "token " + std::to_string(token) + " is none of " + std::to_string(info_.vocab_size));
      }
    }
    return {};
  }

  ModelInfo info_;
  ObservedModel observed_;
  at::Device device_;
  c10::cuda::CUDAStream stream_;  // the default one cannot be recorded
  PagePool pool_;
  PagesOut pages_out_;
  std::unique_ptr<Forward> forward_;
};

}  // namespace

std::unique_ptr<Model> make_cuda_model(ModelInfo info, ObservedModel observed,
                                       std::unique_ptr<Forward> forward, const PageShape& pages,
                                       at::Device device, c10::cuda::CUDAStream stream,
                                       std::uint64_t budget) {
  for (int layer = 0; layer < observed.layers(); ++layer)
    observed.turnings.push_back(forward->turning(layer));
  return std::make_unique<CudaModel>(std::move(info), std::move(observed), std::move(forward),
                                     pages, device, stream, budget);
}

}  // namespace kvfs::model::cuda
