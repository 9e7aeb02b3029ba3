#include "engine/model/cuda/cuda_model.h"

#include <ATen/Context.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <string>

#include "engine/model/cuda/decode.h"
#include "engine/model/cuda/forward.h"
#include "engine/model/cuda/pages_out.h"
#include "engine/model/device.h"
#include "engine/model/families/family.h"

namespace kvfs::model::cuda {
namespace {

constexpr int kMostGroup = 32;  // query heads of a key head whose scores fit in shared memory
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
  CudaModel(ModelInfo info, LlamaSizes config, Weights weights, const PageShape& pages,
            at::Device device, c10::cuda::CUDAStream stream, std::uint64_t budget)
      : info_(std::move(info)),
        config_(std::move(config)),
        weights_(std::move(weights)),
        stream_(stream),
        pool_(pages, device, budget),
        pages_out_(pages, device.index()),
        forward_(make_forward(config_, weights_, pages, device)) {}

  const ModelInfo& info() const override { return info_; }
  std::unique_ptr<Sequence> new_sequence() override {
    return std::make_unique<DeviceSequence>(pool_);
  }
  std::unique_ptr<Sequence> fork(const Sequence& sequence) override { return of(sequence).fork(); }

  Status prefill(Sequence& sequence, std::span<const TokenId> tokens,
                 std::span<float> logits) override {
    const std::string what = "read " + std::to_string(tokens.size()) + " tokens";
    KVFS_TRY(check_step(what, sequence, tokens, logits));
    DeviceSequence& mine = of(sequence);
    const Position before = mine.next_pos();
    const Status done = guarded(what, [&]() -> Status {
      const c10::cuda::CUDAStreamGuard guard(stream_);
      KVFS_TRY(mine.reserve(static_cast<int>(tokens.size())));
      while (!tokens.empty()) {
        const auto room = static_cast<std::size_t>(kGridRows * forward_->most_grids() -
                                                   mine.next_pos() % kGridRows);
        const auto slice = tokens.first(std::min(tokens.size(), room));
        tokens = tokens.subspan(slice.size());
        forward_->read(mine, slice, tokens.empty() ? logits : std::span<float>{});
        mine.advance(static_cast<int>(slice.size()));
      }
      return {};
    });
    if (!done) mine.truncate(before);
    return done;
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
    return done;
  }
  std::int32_t max_batch() const override { return kMaxBatch; }

  int most_ahead() const override { return forward_->most_ahead(); }
  bool draws(const SamplingParams& sampling) const override {
    return sampling.typical == 1.0F && config_.vocab <= 1 << 19;  // DrawStep's
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
      KVFS_ASSIGN(KvPiece piece, of(sequence).read(layer, block));
      std::vector<KvPiece> pieces;
      pieces.push_back(std::move(piece));
      return pieces;
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
    if (gaps) {
      return fail(ErrorCode::kUnsupported, what, "the CUDA kernels attend to every position",
                  "run the state with --device cpu");
    }
    return guarded(what, [&]() -> Result<bool> {
      const c10::cuda::CUDAStreamGuard guard(stream_);
      KVFS_TRY(of(sequence).open_room(end));
      return true;
    });
  }
  Status set_next_pos(Sequence& sequence, Position next_pos) override {
    return of(sequence).set_next_pos(next_pos);
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
  static DeviceSequence& of(Sequence& sequence) { return static_cast<DeviceSequence&>(sequence); }
  static const DeviceSequence& of(const Sequence& sequence) {
    return static_cast<const DeviceSequence&>(sequence);
  }
  Status check_step(const std::string& what, const Sequence& sequence,
                    std::span<const TokenId> tokens, std::span<const float> logits) const {
    if (tokens.empty()) return fail(ErrorCode::kInvalid, what, "there are none");
    const auto left = static_cast<std::size_t>(config_.context - sequence.next_pos());
    if (tokens.size() > left) {
      return fail(
          ErrorCode::kTooLarge, what,
          "the context of " + std::to_string(config_.context) + " leaves " + std::to_string(left),
          "shorten the text or start from a shorter state");
    }
    if (!logits.empty() && logits.size() != static_cast<std::size_t>(config_.vocab)) {
      return fail(ErrorCode::kInternal, what, "room for logits is not the vocabulary's size");
    }
    for (const TokenId token : tokens) {
      if (token < 0 || token >= config_.vocab) {
        return fail(
            ErrorCode::kInvalid, what,
            "token " + std::to_string(token) + " is none of " + std::to_string(config_.vocab));
      }
    }
    return {};
  }

  ModelInfo info_;
  LlamaSizes config_;
  Weights weights_;
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

Status check_kernels_know(const std::string& what, const Architecture& model,
                          const cudaDeviceProp& device) {
  const LlamaSizes config = sizes_of(model);
  std::string why;
  if (const auto unlike = unlike_llama(model)) {
    why = "the CUDA kernels know plain llamas, and of the " + model.family + " family " + *unlike;
  } else if (config.head_width != 64 && config.head_width != 128) {
    why = "the head width is " + std::to_string(config.head_width) +
          ", the CUDA kernels know 64 and 128";
  } else if (config.heads / config.kv_heads > kMostGroup) {
    why = std::to_string(config.heads / config.kv_heads) +
          " query heads share a key head, the CUDA kernels know " + std::to_string(kMostGroup);
  } else if (config.width % kTileOutputs != 0 || config.ffn_width % (kTileOutputs / 2) != 0) {
    why = "its widths are " + std::to_string(config.width) + " and " +
          std::to_string(config.ffn_width) + ", the CUDA kernels know multiples of 16 and 8";
  } else if (device.major < 8) {
    why = std::string(device.name) + " is of compute capability " + std::to_string(device.major) +
          "." + std::to_string(device.minor) + ", 8.0 is the oldest that works";
  }
  if (why.empty()) return {};
  return fail(ErrorCode::kUnsupported, what, why, "run it with --device cpu");
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

// Weights on a device → a model there.
Result<std::unique_ptr<Model>> make_model(ModelInfo info, const LlamaSizes& sizes, Weights weights,
                                          at::Device device, c10::cuda::CUDAStream stream,
                                          std::uint64_t budget) {
  const PageShape pages{sizes.layers, sizes.kv_heads, sizes.head_width, info.kv_dtype};
  info.device =
      "cuda:" + std::to_string(device.index()) + " (" + properties_of(device.index()).name + ")";
  return std::make_unique<CudaModel>(std::move(info), sizes, std::move(weights), pages, device,
                                     stream, budget);
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
    const KernelClass kernels = kernel_class({.cuda = true, .index = index}, compute);
    const bool reference = compute == Compute::kReference;
    const std::uint64_t bytes = weight_bytes(sizes, tied, reference ? 4 : 2);
    KVFS_ASSIGN(const std::uint64_t room, room_for_kv(what, bytes));  // of bf16, the most it can be
    ModelInfo info{.name = name,
                   .path = {},
                   .architecture = "llama",
                   .parameters = bytes / (reference ? 4 : 2),
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
    Weights weights =
        random_weights(sizes, tied, reference ? at::kFloat : at::kBFloat16, kind, device);
    return make_model(std::move(info), sizes, std::move(weights), device, stream, room);
  });
}

Result<std::unique_ptr<Model>> load_cuda_model(const ModelCard& card, const LoadOptions& options,
                                               int index) {
  const std::string what = "load model " + card.info.path.string();
  return guarded(what, [&]() -> Result<std::unique_ptr<Model>> {
    KVFS_ASSIGN(const auto files, Checkpoint::open(card.info.path));
    KVFS_ASSIGN(const Architecture model, read_architecture(*files));
    const LlamaSizes sizes = sizes_of(model);
    const at::Device device(at::kCUDA, static_cast<c10::DeviceIndex>(index));
    const auto stream = c10::cuda::getStreamFromPool(false, device.index());
    const c10::cuda::CUDAStreamGuard guard(stream);
    KVFS_TRY(check_kernels_know(what, model, properties_of(index)));
    choose_arithmetic();

    const bool reference = options.compute == Compute::kReference;
    const at::ScalarType type = reference ? at::kFloat : at::kBFloat16;
    KVFS_ASSIGN(const std::uint64_t room, room_for_kv(what, weights_size(model, type)));
    Weights weights = load_weights(model, type, device, options.progress);
    const std::uint64_t budget = options.kv_budget != 0 ? std::min(options.kv_budget, room) : room;
    return make_model(card.info, sizes, std::move(weights), device, stream, budget);
  });
}

}  // namespace kvfs::model::cuda
