// KV between the host and device pages: through pinned memory, on streams of their own, so that it
// moves beside the model.
//
//   threads ─ memcpy ─► slots of 16 MiB, pinned ─ a stream ─► the same on the device
//                        filled by all threads together        ─ three streams, unpack.h ─► pages
//
// Copies have one stream, since several make each other slower; unpacking has three, since a chunk
// of zh takes longer than a copy, and slots are large, since streams wait for one another where
// there are more than the device has queues. in() may be called from any threads at once, after
// open() for what it brings; everything else from the engine thread, also while in() brings
// something else. Errors are kIo, kCorrupt, kTooLarge where no memory can be had.
#pragma once

#include <cuda_runtime.h>

#include <condition_variable>
#include <cstddef>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "codec/base/result.h"
#include "codec/chunk/codec.h"
#include "engine/model/cuda/pinned.h"
#include "engine/model/cuda/unpack.h"

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

// A chunk and its place: `to` for its first head, the others' `pitch` bytes apart; both multiples
// of 16, as is a head's size.
struct Incoming {
  chunk::CodecId codec;
  chunk::ShapeClass shape;
  ByteSpan encoded;
  std::byte* to;
  std::size_t pitch;
};

class Transfers {
 public:
  using Ticket = std::int32_t;  // chunks known to be damaged when its owner began

  explicit Transfers(int device);
  ~Transfers();
  Transfers(const Transfers&) = delete;
  Transfers& operator=(const Transfers&) = delete;

  // Before a number of in(): what `after` does now is done before they write.
  Result<Ticket> open(cudaStream_t after);
  // From memory that may go away when this returns. kCorrupt: as chunk::decode.
  Status in(const Incoming& chunk);
  // Until all that came in is there. kCorrupt: something that came since the ticket was given, and
  // be it another's, was no code; nobody can tell whose.
  Status wait(Ticket ticket);
  // The other way, when `after` has done what it does now; waits.
  Status out(const Runs& keys, std::byte* key, const Runs& values, std::byte* value,
             cudaStream_t after);

 private:
  struct Slot {
    enum class State { kIdle, kOpening, kOpen, kClosed } state = State::kIdle;
    std::size_t used = 0;
    std::size_t jobs = 0;
    int writers = 0;           // they have claimed room and not filled it yet
    std::uint64_t number = 0;  // of times that it was opened
    cudaEvent_t copied = nullptr;
    cudaEvent_t unpacked = nullptr;
  };
  struct Claim {
    std::size_t slot;
    std::size_t begin;  // in the slot
    std::size_t job;
  };
  Status begin();
  Status bring(const Incoming& chunk);
  Result<Claim> claim(std::size_t bytes);
  void fill_done(std::size_t slot);
  void close_current(std::unique_lock<std::mutex>& lock);
  void send(std::size_t slot, std::unique_lock<std::mutex>& lock);
  cudaError_t launch(std::size_t slot);

  struct Free {
    void operator()(std::byte* memory) const { cudaFree(memory); }
  };
  const int device_;
  cudaStream_t stream_ = nullptr;
  std::vector<cudaStream_t> unpackers_;
  Pinned ring_, staging_, tally_;
  std::byte* memory_ = nullptr;              // ring_'s
  std::int32_t* failures_ = nullptr;         // tally_'s, which the device counts up
  std::unique_ptr<std::byte, Free> copies_;  // of the slots

  std::mutex mutex_;  // guards what follows
  std::condition_variable moved_;
  std::vector<Slot> slots_;  // their number never changes
  std::size_t current_ = 0;
  std::optional<Error> lost_;  // of what could not be sent
};

}  // namespace kvfs::model::cuda
