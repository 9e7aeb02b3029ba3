// Loading onto a device: what fits and which kernels know it.
#include <ATen/Context.h>
#include <c10/cuda/CUDAGuard.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "engine/model/cuda/cuda_model.h"
#include "engine/model/cuda/decode.h"
#include "engine/model/cuda/general_forward.h"
#include "engine/model/cuda/make_model.h"
#include "engine/model/device.h"
#include "engine/model/families/family.h"

namespace kvfs::model::cuda {
namespace {

constexpr std::uint64_t kReserve = std::uint64_t{1} << 30;  // for cuBLAS, scratch and the driver

std::uint64_t weight_bytes(const LlamaSizes& c, bool tied, std::size_t element) {
  const std::uint64_t layer = std::uint64_t(c.width) * std::uint64_t(c.head_width) *
                                  std::uint64_t(2 * c.heads + 2 * c.kv_heads) +
                              3 * std::uint64_t(c.width) * std::uint64_t(c.ffn_width);
  const std::uint64_t tables = tied ? 1 : 2;
  return element * (layer * std::uint64_t(c.layers) +
                    tables * std::uint64_t(c.vocab) * std::uint64_t(c.width));
}

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
  if (model.head_width % 8 != 0 || model.head_width > kMostHeadWidth) {
    why = "the head width is " + std::to_string(model.head_width) +
          ", the CUDA kernels know multiples of 8 up to " + std::to_string(kMostHeadWidth);
  } else if (!std::ranges::all_of(model.layers, [&](const Layer& layer) {
               return eighths(layer.qkv) && eighths(layer.attn_out) &&
                      (!layer.convolution || eighths(layer.convolution->in)) &&
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

std::string name_of(at::Device device) {
  return "cuda:" + std::to_string(device.index()) + " (" + properties_of(device.index()).name + ")";
}

void choose_arithmetic() {
  at::globalContext().setAllowTF32CuBLAS(false);
  at::globalContext().setAllowBF16ReductionCuBLAS(false, true);
  at::globalContext().setAllowFP16ReductionCuBLAS(false, true);
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
    const bool fp16 = kind == WeightKind::kF16;
    const KernelClass kernels = kernel_class({.cuda = true, .index = index}, compute, fp16);
    const std::uint64_t bytes = weight_bytes(sizes, tied, 2);
    KVFS_ASSIGN(const std::uint64_t room,  // of bf16, the most it can be
                room_for_kv(what, bytes + fast_forward_memory(sizes)));
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
                   .fp16 = fp16,
                   .device = {}};
    const auto width = static_cast<std::uint16_t>(sizes.head_width);
    info.layers.assign(static_cast<std::size_t>(sizes.layers),
                       {.kv_heads = static_cast<std::uint16_t>(sizes.kv_heads),
                        .key_width = width,
                        .value_width = width});
    info.prunes = true;
    const PageShape pages(info.layers, sizes.kv_heads, sizes.head_width, info.kv_dtype);
    info.device = name_of(device);
    ObservedModel observed{.heads = {sizes.heads, sizes.kv_heads, sizes.head_width},
                           .dtype = info.kv_dtype,
                           .scale = 1.0F / std::sqrt(static_cast<float>(sizes.head_width)),
                           .turnable = {false, std::vector<int>(info.layers.size())},
                           .turnings = {}};
    auto forward = make_fast_forward(
        sizes, random_weights(sizes, tied, fp16 ? at::kHalf : at::kBFloat16, kind, device), pages,
        device);
    return make_cuda_model(std::move(info), std::move(observed), std::move(forward), pages, device,
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
    const at::ScalarType type = reference ? at::kFloat : card.info.fp16 ? at::kHalf : at::kBFloat16;
    KVFS_ASSIGN(
        const std::uint64_t room,
        room_for_kv(what, fast ? weights_size(model, type) + fast_forward_memory(sizes_of(model))
                               : general_weights_size(model, type)));
    const PageShape pages(card.info.layers, model.kv_heads, model.head_width, card.info.kv_dtype);
    ObservedModel observed{.heads = {model.heads, model.kv_heads, model.head_width},
                           .dtype = pages.dtype,
                           .scale = model.attention_scale,
                           .turnable = {model.positions != nullptr, {}},
                           .turnings = {}};
    for (const Layer& layer : model.layers) observed.turnable.windows.push_back(layer.window);
    auto forward =
        fast ? make_fast_forward(sizes_of(model),
                                 load_weights(model, type, device, options.progress), pages, device)
             : make_general_forward(model,
                                    load_general_weights(model, type, device, options.progress),
                                    pages, device, type != at::kBFloat16 || properties.major >= 8);
    const std::uint64_t budget = options.kv_budget != 0 ? std::min(options.kv_budget, room) : room;
    ModelInfo info = card.info;
    info.device = name_of(device);
    return make_cuda_model(std::move(info), std::move(observed), std::move(forward), pages, device,
                           stream, budget);
  });
}

}  // namespace kvfs::model::cuda
