#include "engine/model/cpu/cpu_model.h"

#include <algorithm>
#include <utility>

#include "engine/model/cpu/compact.h"
#include "engine/model/cpu/forward.h"
#include "engine/model/cpu/host.h"
#include "engine/model/cpu/observe.h"
#include "engine/model/cpu/observer.h"
#include "engine/model/families/family.h"

namespace kvfs::model::cpu {
namespace {

constexpr int kSlice = 256;  // tokens read at a time
constexpr int kBatch = 16;

class CpuModel final : public Model {
 public:
  CpuModel(std::unique_ptr<Checkpoint> files, std::unique_ptr<Architecture> model, ModelInfo info,
           const PageShape& shape, std::uint64_t budget, const Kernels& kernels,
           std::unique_ptr<ForkJoin> threads)
      : files_(std::move(files)),
        model_(std::move(model)),
        info_(std::move(info)),
        kernels_(kernels),
        pool_(shape, budget),
        threads_(std::move(threads)) {}

  Status load(Compute compute, const std::function<void(double)>& progress) {
    if (compute == Compute::kReference) keep_torch_single();
    // What was repacked need not be in memory twice: what is still read of the mapping (embeddings)
    // comes back page by page.
    const auto loaded = [&](double share) {
      files_->release_pages();
      if (progress) progress(share);
    };
    KVFS_ASSIGN(Weights weights, load_weights(*model_, compute, kernels_, *threads_, loaded));
    forward_ = std::make_unique<Forward>(*model_, std::move(weights), pool_.shape(), kernels_,
                                         *threads_, kSlice);
    pool_.warm_up(*threads_);
    return {};
  }

  const ModelInfo& info() const override { return info_; }
  std::unique_ptr<Sequence> new_sequence() override { return std::make_unique<PagedSequence>(); }
  std::unique_ptr<Sequence> fork(const Sequence& sequence) override {
    return static_cast<const PagedSequence&>(sequence).fork();
  }

  Status prefill(Sequence& sequence, std::span<const TokenId> tokens,
                 std::span<float> logits) override {
    return read(static_cast<PagedSequence&>(sequence), tokens, logits, nullptr);
  }
  Status read(PagedSequence& paged, std::span<const TokenId> tokens, std::span<float> logits,
              Watch* watch) {
    if (tokens.empty()) return fail(ErrorCode::kInvalid, "read a prompt", "it has no tokens");
    const Position before = paged.next_pos();
    KVFS_TRY(make_room(paged, tokens, logits));
    const auto vocab = static_cast<std::size_t>(info_.vocab_size);
    const bool each = logits.size() > vocab;
    std::vector<StepRow> rows;
    for (std::size_t first = 0; first < tokens.size(); first += kSlice) {
      const std::size_t count = std::min<std::size_t>(kSlice, tokens.size() - first);
      rows.clear();
      for (std::size_t i = 0; i < count; ++i) {
        const bool last = first + i + 1 == tokens.size();
        rows.push_back({tokens[first + i], &paged, paged.next_pos() + static_cast<Position>(i),
                        each   ? logits.subspan((first + i) * vocab, vocab)
                        : last ? logits
                               : std::span<float>{},
                        watch});
      }
      if (Status done = forward_->step(rows, true); !done) {
        const bool back = paged.can_go_back(pool_.shape(), before);
        paged.truncate(back ? before : before / kPage * kPage);
        return done;
      }
      paged.advance(static_cast<int>(count));
    }
    return {};
  }
  std::int32_t prefill_slice() const override { return kSlice; }

  Status decode(std::span<DecodeItem> items) override {
    if (items.empty() || items.size() > kBatch) {
      return fail(
          ErrorCode::kInvalid, "generate tokens",
          std::to_string(items.size()) + " sequences, wanted 1 to " + std::to_string(kBatch));
    }
    std::vector<StepRow> rows;
    std::vector<Watch> watches(items.size());
    Status done;
    for (std::size_t i = 0; i < items.size(); ++i) {
      DecodeItem& item = items[i];
      auto& paged = static_cast<PagedSequence&>(*item.sequence);
      if (item.seen != nullptr) {
        watches[i] =
            Watch::of_weights(Watch::Fold::kSum, pool_.shape().layers.size(), model_->heads);
      }
      rows.push_back({item.token, &paged, paged.next_pos(), item.logits,
                      item.seen != nullptr ? &watches[i] : nullptr});
      done = make_room(paged, {&item.token, 1}, item.logits);
      if (!done) break;
    }
    if (done) done = forward_->step(rows, false);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      PagedSequence& paged = *rows[i].sequence;
      if (!done) {
        paged.truncate(rows[i].pos);  // gives back what was reserved
        continue;
      }
      paged.advance(1);
      if (items[i].seen == nullptr) continue;
      *items[i].seen = list_entries(pool_.shape(), paged);
      for (std::size_t layer = 0; layer < watches[i].weights.size(); ++layer)
        (*items[i].seen)[layer].scores = std::move(watches[i].weights[layer]);
    }
    return done;
  }
  std::int32_t max_batch() const override { return kBatch; }

  Status truncate(Sequence& sequence, Position end) override {
    auto& paged = static_cast<PagedSequence&>(sequence);
    if (end < 0 || end > paged.next_pos()) {
      return fail(
          ErrorCode::kInvalid, "truncate a sequence",
          "it has " + std::to_string(paged.next_pos()) + " tokens, not " + std::to_string(end));
    }
    if (!paged.can_go_back(pool_.shape(), end)) {
      return fail(ErrorCode::kUnsupported, "truncate a sequence to " + std::to_string(end),
                  "its convolutions' inputs before that are gone",
                  "go back by one token, or to the beginning of a block");
    }
    paged.truncate(end);
    return {};
  }

  Result<std::vector<KvPiece>> kv_out(const Sequence& sequence, std::uint16_t layer,
                                      std::int32_t block) override {
    const auto& paged = static_cast<const PagedSequence&>(sequence);
    const PageShape& shape = pool_.shape();
    const int count = block < 0 ? 0 : std::min(kPage, paged.next_pos() - block * kPage);
    if (layer >= shape.layers.size() || count <= 0) {
      return fail(
          ErrorCode::kInvalid, "take KV out",
          "there is no block " + std::to_string(block) + " of layer " + std::to_string(layer));
    }
    const Page& page = paged.page(block);
    if (page.reached() > std::max<int>(count, shape.layer(layer).kept)) {
      return fail(ErrorCode::kUnsupported, "take KV out of layer " + std::to_string(layer),
                  "its oldest input went when the token that was taken back came",
                  "compute that token again first");
    }
    return page.take_out(layer, block * kPage, count);
  }

  Status kv_in(Sequence& sequence, const KvPiece& piece) override {
    return static_cast<PagedSequence&>(sequence).put_in(pool_, piece);
  }
  Result<bool> kv_room(Sequence& sequence, Position end, bool gaps) override {
    if (gaps && pool_.shape().kept < kPage) {
      return fail(ErrorCode::kUnsupported, "make room for pruned KV",
                  "a model with convolutions takes whole blocks only");
    }
    KVFS_TRY(static_cast<PagedSequence&>(sequence).open_room(pool_, end, gaps));
    return true;
  }
  Status set_next_pos(Sequence& sequence, Position next_pos) override {
    return static_cast<PagedSequence&>(sequence).set_next_pos(pool_, *threads_, next_pos);
  }

  Status prune(Sequence& sequence, const prune::Kept& kept) override {
    return static_cast<PagedSequence&>(sequence).prune(pool_, *threads_, kept);
  }
  Status compact(Sequence& sequence) override {
    auto& paged = static_cast<PagedSequence&>(sequence);
    if (pool_.shape().kept < kPage) {
      return fail(ErrorCode::kUnsupported, "move entries to other positions",
                  "the model has layers with convolutions, which have no entries",
                  "prune states of models with attention only");
    }
    KVFS_ASSIGN(auto moved, compacted(pool_, *forward_, *threads_, paged));
    if (moved) paged = std::move(*moved);
    return {};
  }
  Result<std::vector<std::vector<Position>>> positions(const Sequence& sequence,
                                                       std::uint16_t layer) override {
    const PageShape& shape = pool_.shape();
    if (layer >= shape.layers.size() || shape.convolves(layer)) {
      return fail(ErrorCode::kInvalid, "list the entries of layer " + std::to_string(layer),
                  "the model has no such layer that attends");
    }
    return static_cast<const PagedSequence&>(sequence).positions(shape, layer);
  }
  Result<std::unique_ptr<Observer>> look_again(const Sequence& sequence,
                                               prune::Plan plan) override {
    const auto& paged = static_cast<const PagedSequence&>(sequence);
    const PageShape& shape = pool_.shape();
    if (shape.kept < kPage) {
      return fail(ErrorCode::kUnsupported, "look at what attention sees",
                  "the model has layers with convolutions, which have no entries",
                  "prune states of models with attention only");
    }
    return PagedObserver::begin(shape, kernels_, *forward_, *threads_, paged, std::move(plan),
                                [this](PagedSequence& again, std::span<const TokenId> tokens,
                                       Watch* watch) { return read(again, tokens, {}, watch); });
  }

  std::uint64_t kv_bytes_used() const override { return pool_.used(); }
  std::uint64_t kv_bytes_budget() const override { return pool_.budget(); }

 private:
  Status make_room(PagedSequence& sequence, std::span<const TokenId> tokens,
                   std::span<float> logits) {
    const auto left = static_cast<std::size_t>(info_.context_length - sequence.next_pos());
    if (tokens.size() > left) {
      return fail(ErrorCode::kTooLarge, "read " + std::to_string(tokens.size()) + " tokens",
                  "the context of " + std::to_string(info_.context_length) + " leaves " +
                      std::to_string(left),
                  "shorten the text or start from a shorter state");
    }
    const auto vocab = static_cast<std::size_t>(info_.vocab_size);
    if (!logits.empty() && logits.size() != vocab && logits.size() != tokens.size() * vocab) {
      return fail(ErrorCode::kInternal, "read tokens",
                  "room for logits is not the vocabulary's size");
    }
    for (const TokenId token : tokens) {
      if (token < 0 || token >= info_.vocab_size) {
        return fail(ErrorCode::kInvalid, "read token " + std::to_string(token),
                    "the vocabulary has " + std::to_string(info_.vocab_size));
      }
    }
    return sequence.reserve(pool_, static_cast<int>(tokens.size()));
  }

  std::unique_ptr<Checkpoint> files_;  // the embedding is read from the mapping
  std::unique_ptr<Architecture> model_;
  ModelInfo info_;
  const Kernels& kernels_;
  PagePool pool_;
  std::unique_ptr<ForkJoin> threads_;
  std::unique_ptr<Forward> forward_;
};

}  // namespace

Result<std::unique_ptr<Model>> load_cpu_model(const ModelCard& card, const LoadOptions& options,
                                              const Kernels& kernels) {
  KVFS_ASSIGN(std::unique_ptr<Checkpoint> files, Checkpoint::open(card.info.path));
  KVFS_ASSIGN(Architecture read, read_architecture(*files));
  auto model = std::make_unique<Architecture>(std::move(read));
  const PageShape shape(card.info.layers, model->kv_heads, model->head_width,
                        options.compute == Compute::kReference ? DType::kF32 : DType::kBF16);

  const std::uint64_t needed = weights_size(*model, options.compute) + shape.page_bytes();
  const std::uint64_t available = memory_available();
  if (needed > available) {
    return fail(ErrorCode::kTooLarge, "load model " + card.info.path.string(),
                size_text(needed) + " of memory wanted, " + size_text(available) + " are free",
                "free memory or use a smaller model");
  }
  const std::uint64_t rest = std::max(available - needed, shape.page_bytes());
  const std::uint64_t budget =
      std::min(rest, options.kv_budget > 0 ? options.kv_budget : memory_total() / 2);

  const int cores = physical_cores();
  const int threads = options.threads > 0 ? options.threads : cores;
  const bool pinned = threads > 1 && threads <= cores;  // more threads than cores must share
  if (pinned) keep_to_physical_cores();
  ModelInfo info = card.info;
  info.device = "cpu (" + std::to_string(threads) + (threads == 1 ? " thread, " : " threads, ") +
                kernels.name + ")";
  auto loaded = std::make_unique<CpuModel>(
      std::move(files), std::move(model), std::move(info), shape, budget, kernels,
      std::make_unique<ForkJoin>(threads, pinned ? keep_to_physical_cores : nullptr));
  KVFS_TRY(loaded->load(options.compute, options.progress));
  return loaded;
}

}  // namespace kvfs::model::cpu
