#include "engine/model/cuda/transfers.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#include "codec/chunk/order0_code.h"
#include "codec/chunk/zh.h"

namespace kvfs::model::cuda {
namespace {

constexpr std::size_t kSlots = 8;
constexpr std::size_t kSlotBytes = std::size_t{16} << 20;
constexpr std::size_t kMostJobs = 1024;  // of a slot, in front of what they are about
constexpr std::size_t kUnpackers = 3;
constexpr std::size_t kMostAtOnce = std::size_t{128} << 10;  // of raw bytes: a warp copies them

Status copied(cudaError_t error) {
  if (error == cudaSuccess) return {};
  return fail(ErrorCode::kIo, "copy KV between the device and memory", cudaGetErrorString(error),
              "restart kvfsd; if it happens again, run with --device cpu");
}

tl::unexpected<Error> no_memory(const char* kind) {
  return fail(ErrorCode::kTooLarge, "take memory for copies of KV",
              std::string("there is none left ") + kind, "end other programs");
}

// Neighbours on the device are one copy.
cudaError_t copy_out(const Runs& runs, std::byte* host, cudaStream_t stream) {
  if (runs.pitch == runs.run) {
    return cudaMemcpyAsync(host, runs.device, runs.bytes(), cudaMemcpyDeviceToHost, stream);
  }
  return cudaMemcpy2DAsync(host, runs.run, runs.device, runs.pitch, runs.run, runs.count,
                           cudaMemcpyDeviceToHost, stream);
}

constexpr std::size_t whole(std::size_t bytes) { return (bytes + 15) / 16 * 16; }

// A chunk of zh in the form that the device decodes.
struct Coded {
  chunk::ZhParts parts;
  chunk::Order0Code code;
  std::size_t channels;

  ByteSpan streams() const {  // they lie one behind the other
    return {code.streams.front().data(), code.streams.back().data() + code.streams.back().size()};
  }
  std::size_t bytes() const {
    return whole(parts.rest.size()) + whole(channels) + code.weights.size() +
           whole(streams().size());
  }
  // To `at` bytes behind `copy`.
  void put(std::byte* copy, std::size_t at, UnpackJob& job) const {
    const auto place = [&](ByteSpan bytes) {
      std::memcpy(copy + at, bytes.data(), bytes.size());
      return static_cast<std::uint32_t>(std::exchange(at, at + whole(bytes.size())));
    };
    job.from = place(parts.rest);
    if (parts.centres.empty()) std::memset(copy + at, 0, channels);
    job.centres = parts.centres.empty()
                      ? static_cast<std::uint32_t>(std::exchange(at, at + whole(channels)))
                      : place(parts.centres);
    job.weights = place(code.weights);
    std::uint32_t stream = place(streams());
    for (std::size_t i = 0; i < code.streams.size(); ++i) {
      job.streams[i] = stream;
      stream += static_cast<std::uint32_t>(code.streams[i].size());
    }
    job.streams[code.streams.size()] = stream;
    job.table_bits = static_cast<std::uint8_t>(code.table_bits);
  }
};

// Nothing: the host decodes it, and says what is wrong with it.
std::optional<Coded> coded(const Incoming& chunk) {
  const std::size_t elements = chunk.shape.byte_size() / size_of(chunk.shape.dtype);
  if (chunk.codec != chunk::CodecId::kZh || chunk.shape.dtype != DType::kBF16 ||
      chunk.shape.width % 8 != 0 || elements % 32 != 0) {
    return std::nullopt;
  }
  const auto parts = chunk::zh_parts(chunk.shape, chunk.encoded);
  if (!parts) return std::nullopt;
  const auto code = chunk::order0_code(parts->frame, elements);
  if (!code) return std::nullopt;
  return Coded{*parts, *code, std::size_t{chunk.shape.heads} * chunk.shape.width};
}

}  // namespace

Transfers::Transfers(int device) : device_(device), unpackers_(kUnpackers), slots_(kSlots) {}

Transfers::~Transfers() {
  const auto end = [](cudaStream_t stream) {
    if (stream == nullptr) return;
    cudaStreamSynchronize(stream);
    cudaStreamDestroy(stream);
  };
  end(stream_);
  for (const cudaStream_t stream : unpackers_) end(stream);
  for (const Slot& slot : slots_) {
    if (slot.copied != nullptr) cudaEventDestroy(slot.copied);
    if (slot.unpacked != nullptr) cudaEventDestroy(slot.unpacked);
  }
}

Status Transfers::begin() {
  if (copies_) return {};
  int last = 0;
  int first = 0;  // the most urgent
  KVFS_TRY(copied(cudaDeviceGetStreamPriorityRange(&last, &first)));
  const auto stream = [](cudaStream_t& made, int priority) {
    return made != nullptr
               ? Status{}
               : copied(cudaStreamCreateWithPriority(&made, cudaStreamNonBlocking, priority));
  };
  const auto event = [](cudaEvent_t& made) {
    return made != nullptr ? Status{}
                           : copied(cudaEventCreateWithFlags(&made, cudaEventDisableTiming));
  };
  KVFS_TRY(stream(stream_, first));
  for (cudaStream_t& each : unpackers_) KVFS_TRY(stream(each, last));
  for (Slot& slot : slots_) {
    KVFS_TRY(event(slot.copied));
    KVFS_TRY(event(slot.unpacked));
  }
  memory_ = ring_.room(kSlots * kSlotBytes);
  std::byte* tally = tally_.room(sizeof *failures_);
  if (memory_ == nullptr || tally == nullptr) return no_memory("that can be pinned");
  failures_ = new (tally) std::int32_t(0);
  void* copies = nullptr;
  if (cudaMalloc(&copies, kSlots * kSlotBytes) != cudaSuccess) {
    (void)cudaGetLastError();  // said here
    return no_memory("on the device");
  }
  copies_.reset(static_cast<std::byte*>(copies));
  return {};
}

Result<Transfers::Ticket> Transfers::open(cudaStream_t after) {
  KVFS_TRY(begin());
  cudaEvent_t reached = nullptr;
  KVFS_TRY(copied(cudaEventCreateWithFlags(&reached, cudaEventDisableTiming)));
  cudaError_t error = cudaEventRecord(reached, after);
  if (error == cudaSuccess) error = cudaStreamWaitEvent(stream_, reached);
  cudaEventDestroy(reached);
  KVFS_TRY(copied(error));
  return std::atomic_ref(*failures_).load();
}

// Raw bytes go in portions, so that many warps share them.
Status Transfers::in(const Incoming& chunk) {
  const std::size_t head = chunk.shape.heads == 0 ? 0 : chunk.shape.byte_size() / chunk.shape.heads;
  const std::size_t together = head == 0 ? 1 : std::max<std::size_t>(kMostAtOnce / head, 1);
  if (chunk.codec != chunk::CodecId::kRaw || chunk.shape.heads <= together ||
      chunk.encoded.size() != chunk.shape.byte_size()) {
    return bring(chunk);
  }
  for (std::size_t first = 0; first < chunk.shape.heads; first += together) {
    Incoming some = chunk;
    some.shape.heads =
        static_cast<std::uint16_t>(std::min<std::size_t>(together, chunk.shape.heads - first));
    some.encoded = chunk.encoded.subspan(first * head, some.shape.byte_size());
    some.to = chunk.to + first * chunk.pitch;
    KVFS_TRY(bring(some));
  }
  return {};
}

Status Transfers::bring(const Incoming& chunk) {
  const std::size_t bytes = chunk.shape.byte_size();
  if (chunk.shape.heads == 0 || bytes > kSlotBytes - kMostJobs * sizeof(UnpackJob)) {
    return fail(ErrorCode::kInvalid, "copy KV to the device",
                "a chunk has " + std::to_string(bytes) + " bytes");
  }
  KVFS_TRY(copied(cudaSetDevice(device_)));
  const auto code = coded(chunk);
  KVFS_ASSIGN(const Claim mine, claim(code ? code->bytes() : whole(bytes)));
  std::byte* copy = memory_ + mine.slot * kSlotBytes;
  UnpackJob job{.to = chunk.to,
                .heads = chunk.shape.heads,
                .head_bytes = static_cast<std::uint32_t>(bytes / chunk.shape.heads),
                .pitch = static_cast<std::uint32_t>(chunk.pitch),
                .from = static_cast<std::uint32_t>(mine.begin),
                .centres = 0,
                .weights = 0,
                .streams = {},
                .width = chunk.shape.width,
                .table_bits = 0};
  Status done;
  if (code) {
    code->put(copy, mine.begin, job);
  } else {
    const MutableByteSpan out(reinterpret_cast<std::uint8_t*>(copy + mine.begin), bytes);
    done = chunk::decode(chunk.codec, chunk.shape, chunk.encoded, out);
    if (!done) job.heads = 0;
  }
  std::memcpy(copy + mine.job * sizeof job, &job, sizeof job);
  fill_done(mine.slot);
  return done;
}

Result<Transfers::Claim> Transfers::claim(std::size_t bytes) {
  std::unique_lock lock(mutex_);
  while (true) {
    const std::size_t index = current_;
    Slot& slot = slots_[index];
    if (slot.state == Slot::State::kOpen) {
      if (slot.jobs < kMostJobs && slot.used + bytes <= kSlotBytes) {
        ++slot.writers;
        return Claim{index, std::exchange(slot.used, slot.used + bytes), slot.jobs++};
      }
      close_current(lock);
    } else if (slot.state == Slot::State::kIdle) {
      slot.state = Slot::State::kOpening;
      lock.unlock();
      const Status free = copied(cudaEventSynchronize(slot.copied));  // what it held before
      lock.lock();
      slot.state = free ? Slot::State::kOpen : Slot::State::kIdle;
      slot.used = kMostJobs * sizeof(UnpackJob);
      slot.jobs = 0;
      ++slot.number;
      moved_.notify_all();
      KVFS_TRY(free);
    } else {
      moved_.wait(lock);
    }
  }
}

void Transfers::fill_done(std::size_t index) {
  std::unique_lock lock(mutex_);
  Slot& slot = slots_[index];
  if (--slot.writers == 0 && slot.state == Slot::State::kClosed) send(index, lock);
}

void Transfers::close_current(std::unique_lock<std::mutex>& lock) {
  const std::size_t index = current_;
  slots_[index].state = Slot::State::kClosed;
  current_ = (index + 1) % kSlots;
  if (slots_[index].writers == 0) send(index, lock);
}

// By whoever was the last to fill or close it.
void Transfers::send(std::size_t index, std::unique_lock<std::mutex>& lock) {
  lock.unlock();
  const Status sent = copied(launch(index));
  lock.lock();
  if (!sent && !lost_) lost_ = sent.error();
  slots_[index].state = Slot::State::kIdle;
  moved_.notify_all();
}

cudaError_t Transfers::launch(std::size_t index) {
  const Slot& slot = slots_[index];
  const cudaStream_t unpacker = unpackers_[index % kUnpackers];
  std::byte* copy = copies_.get() + index * kSlotBytes;
  // Its place on the device is free again.
  cudaError_t error = cudaStreamWaitEvent(stream_, slot.unpacked);
  if (error == cudaSuccess) {
    error = cudaMemcpyAsync(copy, memory_ + index * kSlotBytes, slot.used, cudaMemcpyHostToDevice,
                            stream_);
  }
  if (error == cudaSuccess) error = cudaEventRecord(slot.copied, stream_);
  if (error == cudaSuccess) error = cudaStreamWaitEvent(unpacker, slot.copied);
  if (error == cudaSuccess) error = unpack(copy, static_cast<int>(slot.jobs), failures_, unpacker);
  return error == cudaSuccess ? cudaEventRecord(slot.unpacked, unpacker) : error;
}

Status Transfers::wait(Ticket ticket) {
  {
    std::unique_lock lock(mutex_);
    if (!copies_) return {};
    const Slot& current = slots_[current_];
    if (current.state == Slot::State::kOpen && current.jobs > 0) close_current(lock);
    for (const Slot& slot : slots_) {
      moved_.wait(lock, [&, number = slot.number] {
        return slot.state != Slot::State::kClosed || slot.number != number;
      });
    }
    if (lost_) return fail(*lost_);
  }
  for (const Slot& slot : slots_) KVFS_TRY(copied(cudaEventSynchronize(slot.unpacked)));
  if (std::atomic_ref(*failures_).load() == ticket) return {};
  return fail(ErrorCode::kCorrupt, "decode KV on the device",
              "a chunk's streams do not end where its last element does",
              "run kvfsd --check and restore the store from a backup");
}

Status Transfers::out(const Runs& keys, std::byte* key, const Runs& values, std::byte* value,
                      cudaStream_t after) {
  std::byte* memory = staging_.room(keys.bytes() + values.bytes());
  if (memory == nullptr) return no_memory("that can be pinned");
  KVFS_TRY(copied(copy_out(keys, memory, after)));
  KVFS_TRY(copied(copy_out(values, memory + keys.bytes(), after)));
  KVFS_TRY(copied(cudaStreamSynchronize(after)));
  std::memcpy(key, memory, keys.bytes());
  std::memcpy(value, memory + keys.bytes(), values.bytes());
  return {};
}

}  // namespace kvfs::model::cuda
