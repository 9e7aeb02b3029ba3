#include "engine/model/cuda/cuda_model.h"

#include <ATen/Context.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <string>

#include "engine/model/cuda/decode.h"
#include "engine/model/cuda/forward.h"
#include "engine/model/cuda/general_forward.h"
#include "engine/model/cuda/observer.h"
#include "engine/model/cuda/pages_out.h"
#include "engine/model/device.h"
#include "engine/model/families/family.h"

namespace kvfs::model::cuda {
namespace {

constexpr std::uint64_t kReserve = std::uint64_t{1} << 30;  // for cuBLAS, scratch and the driver

// The edge that libtorch's exceptions do not cross.
template <class F>
auto guarded(const std::string& what, F&& body) -> decltype(body()) {
  try {
    return body();
  } catch (const c10::OutOfMemoryError&) {
    return fail(ErrorCode::kTooLarge, what, "the device is out of memory",
                "end other jobs or programs on it, or lower --kv-budget");
  } catch (const std::exception& error) {
    const std::string text = error.what();
    return fail(ErrorCode::kIo, what, text.substr(0, text.find('\n')),
                "restart kvfsd; if it happens again, run with --device cpu");
  }
}

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
        forward_(std::move(forward)) {}

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
  std::int32_t prefill_slice() const override { return kGridRows * forward_->most_grids(); }

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
    // A pruned page's entries are listed here.
    if (from.page(block)->sparse) return Model::kv_on_its_way(sequence, block);
    return pages_out_.send(from.page(block), begin, count, stream_);
  }
  Status kv_in(Sequence& sequence, const KvPiece& piece) override {
    return guarded("put KV on the device", [&]() -> Status {
      const c10::cuda::CUDAStreamGuard guard(stream_);
      return of(sequence).write(piece);
    });
  }
  Result<bool> kv_room(Sequence& sequence, Position end, bool gaps) override {
    const std::string what = "make room for KV up to " + std::to_string(end);
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
  Result<std::vector<std::vector<Position>>> positions(const Sequence& sequence,
                                                       std::uint16_t layer) override {
    if (layer >= observed_.layers) {
      return fail(ErrorCode::kInvalid, "list a sequence's entries",
                  "there is no layer " + std::to_string(layer));
    }
    return of(sequence).positions(layer);
  }
  Result<std::unique_ptr<Observer>> look_again(const Sequence& sequence,
                                               prune::Plan plan) override {
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
        forward_->read(mine, slice, tokens.empty() ? logits : std::span<float>{}, watch);
        mine.advance(static_cast<int>(slice.size()));
      }
      return {};
    });
    if (!done) mine.truncate(before);
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

std::uint64_t weight_bytes(const LlamaSizes& c, bool tied, std::size_t element) {
  const std::uint64_t layer = std::uint64_t(c.width) * std::uint64_t(c.head_width) *
                                  std::uint64_t(2 * c.heads + 2 * c.kv_heads) +
                              3 * std::uint64_t(c.width) * std::uint64_t(c.ffn_width);
  const std::uint64_t tables = tied ? 1 : 2;
  return element * (layer * std::uint64_t(c.layers) +
                    tables * std::uint64_t(c.vocab) * std::uint64_t(c.width));
}

}  // namespace

Result<int> device_count() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaSuccess) return count;
  if (error == cudaErrorNoDevice) return 0;
  return fail(ErrorCode::kUnsupported, "look for NVIDIA GPUs", cudaGetErrorString(error),
              "install or update the driver, or run with --device cpu");
}

namespace {

cudaDeviceProp properties_of(int index) {
  cudaDeviceProp properties;
  const cudaError_t error = cudaGetDeviceProperties(&properties, index);
  if (error != cudaSuccess) throw ForwardError(error);
  return properties;
}

// What no kernel here knows.
Status check_kernels_know(const std::string& what, const Architecture& model,
                          const cudaDeviceProp& device) {
  std::string why;
  const auto eighths = [](const Linear& linear) { return linear.inputs % 8 == 0; };
  if (std::ranges::any_of(model.layers, [](const Layer& l) { return l.convolution.has_value(); })) {
    why = "some of its layers are short convolutions, the CUDA kernels know attention only";
  } else if (model.head_width % 8 != 0 || model.head_width > kMostHeadWidth) {
    why = "the head width is " + std::to_string(model.head_width) +
          ", the CUDA kernels know multiples of 8 up to " + std::to_string(kMostHeadWidth);
  } else if (!std::ranges::all_of(model.layers, [&](const Layer& layer) {
               return eighths(layer.qkv) && eighths(layer.attn_out) &&
                      std::ranges::all_of(layer.experts, [&](const FeedForward& ffn) {
                        return eighths(ffn.up) && eighths(ffn.down);
                      });
             })) {
    why = "a matrix has a width that is no multiple of 8";
  } else if (device.major * 10 + device.minor < 75) {
    why = std::string(device.name) + " is of compute capability " + std::to_string(device.major) +
          "." + std::to_string(device.minor) + ", 7.5 is the oldest that works";
  }
  if (why.empty()) return {};
  return fail(ErrorCode::kUnsupported, what, why, "run it with --device cpu");
}

// Whether the kernels that are made for plain llamas run this one.
bool is_fast(const Architecture& model, Compute compute, const cudaDeviceProp& device) {
  const LlamaSizes sizes = sizes_of(model);
  return compute == Compute::kFast && device.major >= 8 && !unlike_llama(model) &&
         (sizes.head_width == 64 || sizes.head_width == 128) &&
         sizes.heads / sizes.kv_heads <= kMostGroup && sizes.width % kTileOutputs == 0 &&
         sizes.ffn_width % (kTileOutputs / 2) == 0;
}

// What the device has left for KV beside the weights.
Result<std::uint64_t> room_for_kv(const std::string& what, std::uint64_t weights) {
  std::size_t free_bytes = 0;
  std::size_t all_bytes = 0;
  if (const cudaError_t error = cudaMemGetInfo(&free_bytes, &all_bytes); error != cudaSuccess) {
    throw ForwardError(error);
  }
  if (weights + kReserve < free_bytes) return free_bytes - weights - kReserve;
  return fail(ErrorCode::kTooLarge, what,
              "it needs " + std::to_string((weights + kReserve) >> 20) + " MiB, the device has " +
                  std::to_string(free_bytes >> 20) + " MiB free",
              "free the device, or run it with --device cpu");
}

}  // namespace

namespace {

// A forward pass on a device → a model there.
Result<std::unique_ptr<Model>> make_model(ModelInfo info, ObservedModel observed,
                                          std::unique_ptr<Forward> forward, const PageShape& pages,
                                          at::Device device, c10::cuda::CUDAStream stream,
                                          std::uint64_t budget) {
  info.device =
      "cuda:" + std::to_string(device.index()) + " (" + properties_of(device.index()).name + ")";
  return std::make_unique<CudaModel>(std::move(info), std::move(observed), std::move(forward),
                                     pages, device, stream, budget);
}

void choose_arithmetic() {
  at::globalContext().setAllowTF32CuBLAS(false);
  at::globalContext().setAllowBF16ReductionCuBLAS(false, true);
}

}  // namespace

Result<std::unique_ptr<Model>> make_random_cuda_model(const std::string& name,
                                                      const LlamaSizes& sizes, bool tied,
                                                      Compute compute, WeightKind kind, int index) {
  const std::string what = "make a random model in the shape of " + name;
  return guarded(what, [&]() -> Result<std::unique_ptr<Model>> {
    const at::Device device(at::kCUDA, static_cast<c10::DeviceIndex>(index));
    const auto stream = c10::cuda::getStreamFromPool(false, device.index());
    const c10::cuda::CUDAStreamGuard guard(stream);
    choose_arithmetic();
    if (compute == Compute::kReference) {
      return fail(ErrorCode::kUnsupported, what,
                  "random weights are to measure the fast mode with");
    }
    const KernelClass kernels = kernel_class({.cuda = true, .index = index}, compute);
    const std::uint64_t bytes = weight_bytes(sizes, tied, 2);
    KVFS_ASSIGN(const std::uint64_t room, room_for_kv(what, bytes));  // of bf16, the most it can be
    ModelInfo info{.name = name,
                   .path = {},
                   .architecture = "llama",
                   .parameters = bytes / 2,
                   .weight_bytes = bytes,
                   .resident_bytes = bytes,
                   .context_length = sizes.context,
                   .vocab_size = sizes.vocab,
                   .layers = {},
                   .fingerprint = {},
                   .kernel_class = kernels.name,
                   .kv_dtype = kernels.kv_dtype,
                   .one_path = kernels.one_path,
                   .device = {}};
    const auto width = static_cast<std::uint16_t>(sizes.head_width);
    info.layers.assign(static_cast<std::size_t>(sizes.layers),
                       {.kv_heads = static_cast<std::uint16_t>(sizes.kv_heads),
                        .key_width = width,
                        .value_width = width});
    info.prunes = true;
    const PageShape pages{sizes.layers, sizes.kv_heads, sizes.head_width, info.kv_dtype};
    ObservedModel observed{sizes.layers, sizes.heads, sizes.kv_heads,
                           std::vector<int>(static_cast<std::size_t>(sizes.layers)), info.kv_dtype};
    auto forward = make_fast_forward(
        sizes, random_weights(sizes, tied, at::kBFloat16, kind, device), pages, device);
    return make_model(std::move(info), std::move(observed), std::move(forward), pages, device,
                      stream, room);
  });
}

Result<std::unique_ptr<Model>> load_cuda_model(const ModelCard& card, const LoadOptions& options,
                                               int index) {
  const std::string what = "load model " + card.info.path.string();
  return guarded(what, [&]() -> Result<std::unique_ptr<Model>> {
    KVFS_ASSIGN(const auto files, Checkpoint::open(card.info.path));
    KVFS_ASSIGN(const Architecture model, read_architecture(*files));
    const at::Device device(at::kCUDA, static_cast<c10::DeviceIndex>(index));
    const auto stream = c10::cuda::getStreamFromPool(false, device.index());
    const c10::cuda::CUDAStreamGuard guard(stream);
    const cudaDeviceProp properties = properties_of(index);
    KVFS_TRY(check_kernels_know(what, model, properties));
    choose_arithmetic();

    const bool fast = is_fast(model, options.compute, properties);
    const bool reference = options.compute == Compute::kReference;
    const at::ScalarType type = reference ? at::kFloat : at::kBFloat16;
    KVFS_ASSIGN(
        const std::uint64_t room,
        room_for_kv(what, fast ? weights_size(model, type) : general_weights_size(model, type)));
    const PageShape pages{static_cast<int>(model.layers.size()), model.kv_heads, model.head_width,
                          card.info.kv_dtype};
    ObservedModel observed{pages.layers, model.heads, model.kv_heads, {}, pages.dtype};
    for (const Layer& layer : model.layers) observed.windows.push_back(layer.window);
    auto forward =
        fast ? make_fast_forward(sizes_of(model),
                                 load_weights(model, type, device, options.progress), pages, device)
             : make_general_forward(model,
                                    load_general_weights(model, type, device, options.progress),
                                    pages, device, properties.major >= 8);
    const std::uint64_t budget = options.kv_budget != 0 ? std::min(options.kv_budget, room) : room;
    return make_model(card.info, std::move(observed), std::move(forward), pages, device, stream,
                      budget);
  });
}

}  // namespace kvfs::model::cuda
