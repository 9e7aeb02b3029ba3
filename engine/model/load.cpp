#include "engine/model/cpu/cpu_model.h"
#include "engine/model/cpu/host.h"
#include "engine/model/device.h"
#include "engine/model/model.h"
#ifdef KVFS_CUDA
#include "engine/model/cuda/cuda_model.h"
#endif

namespace kvfs::model {

Result<Device> choose_device(const DeviceChoice& choice) {
  if (choice.kind == DeviceChoice::Kind::kCpu) return Device{};
#ifdef KVFS_CUDA
  const Result<int> count = cuda::device_count();
  if (count && choice.index < *count) return Device{.cuda = true, .index = choice.index};
  const std::string why =
      count ? "no such GPU: this machine has " + std::to_string(*count) : count.error().why;
#else
  const std::string why = "this build has no CUDA";
#endif
  if (choice.kind == DeviceChoice::Kind::kAuto) return Device{};
  return fail(ErrorCode::kUnsupported, "device cuda:" + std::to_string(choice.index), why,
              "use --device cpu, or a build with KVFS_CUDA=1 on a machine with an NVIDIA GPU");
}

KernelClass kernel_class(const Device& device, Compute compute, bool fp16) {
  const bool reference = compute == Compute::kReference;
  const char* cuda = reference ? "cuda-reference-2" : fp16 ? "cuda-fast-fp16-1" : "cuda-fast-4";
  return {.name = device.cuda ? cuda
                  : reference ? "cpu-reference-1"
                              : "cpu-fast-1",
          // Of a mode, whatever the weights: a state goes on on any device.
          .kv_dtype = reference ? DType::kF32 : DType::kBF16,
          // The CPU's fast kernels compute a row alike in any company; libtorch's GEMMs do not.
          .one_path = !device.cuda && !reference};
}

std::uint64_t memory_of(const DeviceChoice& choice) {
  const Result<Device> device = choose_device(choice);
  return device && !device->cuda ? cpu::memory_total() : 0;
}

std::string size_text(std::uint64_t bytes) {
  if (bytes < std::uint64_t{1} << 30) return std::to_string((bytes + (1U << 19)) >> 20) + " MiB";
  const std::uint64_t tenths = ((bytes >> 20) * 10 + 512) >> 10;
  return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10) + " GiB";
}

Result<std::unique_ptr<Model>> load_model(const ModelCard& card, const LoadOptions& options) {
  KVFS_ASSIGN(const Device device, choose_device(options.device));
  const KernelClass kernels = kernel_class(device, options.compute, card.info.fp16);
  if (kernels.name != card.info.kernel_class) {
    return fail(ErrorCode::kInvalid, "load model " + card.info.path.string(),
                "its card was read for " + card.info.kernel_class + ", not " + kernels.name,
                "read the card for the same device and compute mode");
  }
#ifdef KVFS_CUDA
  if (device.cuda) return cuda::load_cuda_model(card, options, device.index);
#endif
  return cpu::load_cpu_model(card, options, cpu::best_kernels());
}

}  // namespace kvfs::model
