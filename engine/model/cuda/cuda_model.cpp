#include "engine/model/cuda/cuda_model.h"

#include <ATen/Context.h>
#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>

#include <algorithm>
#include <string>

#include "codec/container/gguf.h"
#include "engine/model/cuda/forward.h"

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
  CudaModel(ModelInfo info, LlamaConfig config, Weights weights, const PageShape& pages, at::Device device,
            std::uint64_t budget)
      : info_(std::move(info)), config_(std::move(config)), weights_(std::move(weights)),
        device_(device), pool_(pages, device, budget),
        forward_(make_forward(config_, weights_, pages, device)) {}

  const ModelInfo& info() const override { return info_; }
  std::unique_ptr<Sequence> new_sequence() override { return std::make_unique<DeviceSequence>(pool_); }
  std::unique_ptr<Sequence> fork(const Sequence& sequence) override { return of(sequence).fork(); }

  Status prefill(Sequence& sequence, std::span<const TokenId> tokens, std::span<float> logits) override {
    KVFS_TRY(check_room(sequence, tokens.size()));
    return guarded("read " + std::to_string(tokens.size()) + " tokens", [&]() -> Status {
      const c10::cuda::CUDAGuard guard(device_);
      DeviceSequence& mine = of(sequence);
      const Position before = mine.next_pos();
      KVFS_TRY(mine.reserve(static_cast<int>(tokens.size())));
      try {
        while (!tokens.empty()) {
          const auto room = static_cast<std::size_t>(kGridRows - mine.next_pos() % kGridRows);
          const auto slice = tokens.first(std::min(tokens.size(), room));
          tokens = tokens.subspan(slice.size());
          forward_->read(mine, slice, tokens.empty() ? logits : std::span<float>{});
          mine.advance(static_cast<int>(slice.size()));
        }
      } catch (...) {
        mine.truncate(before);
        throw;
      }
      return {};
    });
  }
  std::int32_t prefill_slice() const override { return kGridRows; }

  Status decode(std::span<DecodeItem> items) override {
    for (const DecodeItem& item : items) KVFS_TRY(check_room(*item.sequence, 1));
    return guarded("generate " + std::to_string(items.size()) + " tokens", [&]() -> Status {
      const c10::cuda::CUDAGuard guard(device_);
      std::vector<Forward::Row> rows;
      for (const DecodeItem& item : items) {
        KVFS_TRY(of(*item.sequence).reserve(1));
        rows.push_back({&of(*item.sequence), item.token, item.logits});
      }
      forward_->generate(rows);
      for (const DecodeItem& item : items) of(*item.sequence).advance(1);
      return {};
    });
  }
  std::int32_t max_batch() const override { return kMaxBatch; }

  Status truncate(Sequence& sequence, Position end) override {
    of(sequence).truncate(end);
    return {};
  }
  Result<std::vector<KvPiece>> kv_out(const Sequence& sequence, std::uint16_t layer, std::int32_t block) override {
    return guarded("read KV from the device", [&]() -> Result<std::vector<KvPiece>> {
      const c10::cuda::CUDAGuard guard(device_);
      KVFS_ASSIGN(KvPiece piece, of(sequence).read(layer, block));
      std::vector<KvPiece> pieces;
      pieces.push_back(std::move(piece));
      return pieces;
    });
  }
  Status kv_in(Sequence& sequence, const KvPiece& piece) override {
    return guarded("put KV on the device", [&]() -> Status {
      const c10::cuda::CUDAGuard guard(device_);
      return of(sequence).write(piece);
    });
  }
  Status set_next_pos(Sequence& sequence, Position next_pos) override {
    return of(sequence).set_next_pos(next_pos);
  }
  std::uint64_t kv_bytes_used() const override { return pool_.used(); }
  std::uint64_t kv_bytes_budget() const override { return pool_.budget(); }

 private:
  static DeviceSequence& of(Sequence& sequence) { return static_cast<DeviceSequence&>(sequence); }
  static const DeviceSequence& of(const Sequence& sequence) {
    return static_cast<const DeviceSequence&>(sequence);
  }
  Status check_room(const Sequence& sequence, std::size_t count) const {
    const auto end = static_cast<std::int64_t>(sequence.next_pos()) + static_cast<std::int64_t>(count);
    if (end <= config_.context) return {};
    return fail(ErrorCode::kTooLarge, "history of " + std::to_string(end) + " tokens",
                info_.name + " has a context of " + std::to_string(config_.context),
                "fork an earlier state, or shorten the text");
  }

  ModelInfo info_;
  LlamaConfig config_;
  Weights weights_;
  at::Device device_;
  PagePool pool_;
  std::unique_ptr<Forward> forward_;
};

std::uint64_t weight_bytes(const LlamaModel& model, std::size_t element) {
  const LlamaConfig& c = model.config;
  const std::uint64_t layer = std::uint64_t(c.width) * std::uint64_t(c.head_width) *
                                  std::uint64_t(2 * c.heads + 2 * c.kv_heads) +
                              3 * std::uint64_t(c.width) * std::uint64_t(c.ffn_width);
  const std::uint64_t tables = model.tensors.tied() ? 1 : 2;
  return element * (layer * std::uint64_t(c.layers) + tables * std::uint64_t(c.vocab) * std::uint64_t(c.width));
}

}  // namespace

int device_count() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

Result<std::unique_ptr<Model>> load_cuda_model(const ModelCard& card, const LoadOptions& options, int index) {
  const std::string what = "load model " + card.info.path.string();
  return guarded(what, [&]() -> Result<std::unique_ptr<Model>> {
    KVFS_ASSIGN(const auto file, container::GgufFile::open(card.info.path));
    KVFS_ASSIGN(LlamaModel model, read_llama(*file));
    if (model.config.head_width != 64 && model.config.head_width != 128) {
      return fail(ErrorCode::kUnsupported, what,
                  "llama.attention.key_length is " + std::to_string(model.config.head_width) +
                      ", the CUDA kernels know 64 and 128",
                  "run it with --device cpu");
    }
    const at::Device device(at::kCUDA, static_cast<c10::DeviceIndex>(index));
    const c10::cuda::CUDAGuard guard(device);
    at::globalContext().setAllowTF32CuBLAS(false);
    at::globalContext().setAllowBF16ReductionCuBLAS(at::CuBLASReductionOption::DisallowReducedPrecisionDisallowSplitK);

    const bool reference = options.compute == Compute::kReference;
    const std::uint64_t needed = weight_bytes(model, reference ? 4 : 2);
    std::size_t free_bytes = 0;
    std::size_t all_bytes = 0;
    if (const cudaError_t error = cudaMemGetInfo(&free_bytes, &all_bytes); error != cudaSuccess) {
      throw ForwardError(error);
    }
    if (needed + kReserve > free_bytes) {
      return fail(ErrorCode::kTooLarge, what,
                  "it needs " + std::to_string((needed + kReserve) >> 20) + " MiB, the device has " +
                      std::to_string(free_bytes >> 20) + " MiB free",
                  "free the device, or run it with --device cpu");
    }
    Weights weights = load_weights(model, reference ? at::kFloat : at::kBFloat16, device, options.progress);
    const std::uint64_t room = free_bytes - needed - kReserve;
    const std::uint64_t budget = options.kv_budget != 0 ? std::min(options.kv_budget, room) : room;
    const PageShape pages{model.config.layers, model.config.kv_heads, model.config.head_width,
                          reference ? DType::kF32 : DType::kBF16};
    ModelInfo info = card.info;
    info.device = "cuda:" + std::to_string(index) + " (" + at::cuda::getDeviceProperties(index)->name + ")";
    return std::make_unique<CudaModel>(std::move(info), model.config, std::move(weights), pages, device, budget);
  });
}

}  // namespace kvfs::model::cuda
