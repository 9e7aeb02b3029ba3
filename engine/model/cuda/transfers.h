// KV between the host and device pages: through pinned memory, on a stream of its own, so that
// copies run beside the model. One stream: several make each other slower.
//
//   threads ─ memcpy ─► a ring of pinned slots ─ a stream ─► pages
//
// in() may be called from any threads at once, after open() for what it brings; everything else
// from the engine thread, also while in() brings something else. The first open() says how large
// slots are. Errors are kIo, kTooLarge where no memory can be pinned.
#pragma once

#include <cuda_runtime.h>

#include <array>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <vector>

#include "codec/base/result.h"
#include "engine/model/cuda/pinned.h"

namespace kvfs::model::cuda {

// `count` runs of bytes, those on the device `pitch` bytes apart, those on the host one after the
// other.
struct Runs {
  std::byte* device;
  std::size_t pitch;
  std::size_t run;
  std::size_t count;

  std::size_t bytes() const { return run * count; }
  Runs nothing() const { return {device + bytes(), 0, 0, 0}; }  // behind it
};

class Transfers {
 public:
  explicit Transfers(int device) : device_(device) {}
  ~Transfers();
  Transfers(const Transfers&) = delete;
  Transfers& operator=(const Transfers&) = delete;

  // Before a number of in(): what `after` does now is done before they write. slot: bytes, the most
  // that one in() brings; the same each time.
  Status open(std::size_t slot, cudaStream_t after);
  // Keys and values, from memory that may go away when this returns.
  Status in(const Runs& keys, const std::byte* key, const Runs& values, const std::byte* value);
  // Until all that came in is there.
  Status wait();
  // The other way, when `after` has done what it does now; waits.
  Status out(const Runs& keys, std::byte* key, const Runs& values, std::byte* value,
             cudaStream_t after);

 private:
  static constexpr std::size_t kSlots = 32;

  struct Slot {
    cudaEvent_t copied = nullptr;
    bool taken = false;
  };
  Status begin(std::size_t slot_bytes);
  Status copy_in(std::size_t index, const Runs& keys, const std::byte* key, const Runs& values,
                 const std::byte* value);

  const int device_;
  cudaStream_t stream_ = nullptr;
  Pinned ring_, staging_;
  std::byte* memory_ = nullptr;  // ring_'s
  std::size_t slot_bytes_ = 0;

  std::mutex mutex_;  // guards what follows
  std::condition_variable free_;
  std::array<Slot, kSlots> slots_{};
  std::size_t next_ = 0;
};

}  // namespace kvfs::model::cuda
