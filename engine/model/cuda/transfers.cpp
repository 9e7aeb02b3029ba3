#include "engine/model/cuda/transfers.h"

#include <cstring>

namespace kvfs::model::cuda {
namespace {

Status copied(cudaError_t error) {
  if (error == cudaSuccess) return {};
  return fail(ErrorCode::kIo, "copy KV between the device and memory", cudaGetErrorString(error),
              "restart kvfsd; if it happens again, run with --device cpu");
}

Status pinned(const std::byte* memory) {
  if (memory != nullptr) return {};
  return fail(ErrorCode::kTooLarge, "pin memory for copies of KV", "there is none left",
              "end other programs");
}

// Neighbours on the device are one copy.
cudaError_t copy(const Runs& runs, std::byte* host, bool in, cudaStream_t stream) {
  const auto kind = in ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToHost;
  void* to = in ? runs.device : host;
  const void* from = in ? host : runs.device;
  if (runs.pitch == runs.run) return cudaMemcpyAsync(to, from, runs.bytes(), kind, stream);
  const std::size_t to_pitch = in ? runs.pitch : runs.run;
  const std::size_t from_pitch = in ? runs.run : runs.pitch;
  return cudaMemcpy2DAsync(to, to_pitch, from, from_pitch, runs.run, runs.count, kind, stream);
}

// Both sides; of a whole block they lie one behind the other.
cudaError_t copy_both(const Runs& keys, const Runs& values, std::byte* host, bool in,
                      cudaStream_t stream) {
  if (keys.pitch == keys.run && values.pitch == values.run &&
      keys.device + keys.bytes() == values.device) {
    return copy({keys.device, keys.run, keys.run, keys.count + values.count}, host, in, stream);
  }
  const cudaError_t error = copy(keys, host, in, stream);
  return error == cudaSuccess ? copy(values, host + keys.bytes(), in, stream) : error;
}

}  // namespace

Transfers::~Transfers() {
  if (stream_ != nullptr) {
    cudaStreamSynchronize(stream_);
    cudaStreamDestroy(stream_);
  }
  for (const Slot& slot : slots_) {
    if (slot.copied != nullptr) cudaEventDestroy(slot.copied);
  }
}

Status Transfers::begin(std::size_t slot_bytes) {
  if (stream_ == nullptr) {
    KVFS_TRY(copied(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)));
  }
  for (Slot& slot : slots_) {
    if (slot.copied == nullptr) {
      KVFS_TRY(copied(cudaEventCreateWithFlags(&slot.copied, cudaEventDisableTiming)));
    }
  }
  if (memory_ == nullptr) {
    memory_ = ring_.room(kSlots * slot_bytes);
    KVFS_TRY(pinned(memory_));
    slot_bytes_ = slot_bytes;
  }
  return {};
}

Status Transfers::open(std::size_t slot, cudaStream_t after) {
  KVFS_TRY(begin(slot));
  cudaEvent_t reached = nullptr;
  KVFS_TRY(copied(cudaEventCreateWithFlags(&reached, cudaEventDisableTiming)));
  cudaError_t error = cudaEventRecord(reached, after);
  if (error == cudaSuccess) error = cudaStreamWaitEvent(stream_, reached);
  cudaEventDestroy(reached);
  return copied(error);
}

Status Transfers::in(const Runs& keys, const std::byte* key, const Runs& values,
                     const std::byte* value) {
  std::size_t mine = 0;
  {
    std::unique_lock lock(mutex_);
    free_.wait(lock, [this] { return !slots_[next_].taken; });
    mine = next_;
    next_ = (next_ + 1) % kSlots;
    slots_[mine].taken = true;
  }
  Status done = copied(cudaSetDevice(device_));
  if (done) done = copy_in(mine, keys, key, values, value);
  {
    const std::lock_guard lock(mutex_);
    slots_[mine].taken = false;
  }
  free_.notify_all();
  return done;
}

Status Transfers::copy_in(std::size_t index, const Runs& keys, const std::byte* key,
                          const Runs& values, const std::byte* value) {
  const Slot& slot = slots_[index];
  std::byte* host = memory_ + index * slot_bytes_;
  KVFS_TRY(copied(cudaEventSynchronize(slot.copied)));  // what it held before is on the device
  std::memcpy(host, key, keys.bytes());
  std::memcpy(host + keys.bytes(), value, values.bytes());
  KVFS_TRY(copied(copy_both(keys, values, host, true, stream_)));
  return copied(cudaEventRecord(slot.copied, stream_));
}

Status Transfers::wait() {
  if (stream_ == nullptr) return {};
  return copied(cudaStreamSynchronize(stream_));
}

Status Transfers::out(const Runs& keys, std::byte* key, const Runs& values, std::byte* value,
                      cudaStream_t after) {
  std::byte* host = staging_.room(keys.bytes() + values.bytes());
  KVFS_TRY(pinned(host));
  KVFS_TRY(copied(copy_both(keys, values, host, false, after)));
  KVFS_TRY(copied(cudaStreamSynchronize(after)));
  std::memcpy(key, host, keys.bytes());
  std::memcpy(value, host + keys.bytes(), values.bytes());
  return {};
}

}  // namespace kvfs::model::cuda
