#include "engine/model/cuda/unpack.h"

namespace kvfs::model::cuda {
namespace {

constexpr int kWarps = 2;
constexpr int kMostBits = 11;
constexpr int kStreams = 4;
constexpr int kTile = 128;  // symbols of each stream that are decoded before they are joined
constexpr int kSome = 4;    // symbols that one look into the table gives at most
constexpr unsigned kAll = 0xffffffffU;

// What one warp decodes a chunk with.
struct Shared {
  // By the next table_bits bits: a symbol, and its code's length at 8.
  std::uint16_t one[1 << kMostBits];
  // All that lie within these bits, up to kSome: x holds the symbols, y the length of all and, at
  // 8, how many there are.
  uint2 some[1 << kMostBits];
  // Of each stream; what is over belongs to the next tile.
  alignas(16) std::uint8_t symbols[kStreams][kTile + 32];
};

__device__ std::uint32_t byte_of(uint2 bytes, int i) {
  return (i < 4 ? bytes.x : bytes.y) >> (8 * (i & 3)) & 0xff;
}

// Lanes' counts → how many the lanes before have.
__device__ unsigned before(unsigned count, int lane) {
  unsigned sum = count;
  for (int step = 1; step < 32; step *= 2) {
    const unsigned other = __shfl_up_sync(kAll, sum, step);
    if (lane >= step) sum += other;
  }
  return sum - count;
}

__device__ void build_tables(const std::uint8_t* weights, int table_bits, int lane,
                             Shared& shared) {
  const uint2 mine = reinterpret_cast<const uint2*>(weights)[lane];  // of symbols 8 · lane …
  const unsigned mask = (1U << table_bits) - 1;
  unsigned first = 0;  // place of the weight's first symbol
  for (unsigned weight = 1; weight <= static_cast<unsigned>(table_bits); ++weight) {
    unsigned count = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) count += byte_of(mine, i) == weight;
    const unsigned earlier = before(count, lane);
    const unsigned all = __shfl_sync(kAll, earlier + count, 31);
    const unsigned places = 1U << (weight - 1);
    unsigned at = first + earlier * places;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (byte_of(mine, i) != weight) continue;
      const unsigned entry = (table_bits + 1 - weight) << 8 | (8 * lane + i);
      for (const unsigned end = at + places; at < end; ++at) {
        shared.one[at & mask] = static_cast<std::uint16_t>(entry);
      }
    }
    first += all * places;
  }
  __syncwarp();
  for (unsigned at = lane; at <= mask; at += 32) {
    unsigned symbols = 0;
    unsigned length = 0;
    unsigned count = 0;
    for (; count < kSome; ++count) {
      const unsigned next = shared.one[at << length & mask];
      if (length + (next >> 8) > static_cast<unsigned>(table_bits)) break;
      symbols |= (next & 0xff) << (8 * count);
      length += next >> 8;
    }
    shared.some[at] = make_uint2(symbols, count << 8 | length);
  }
  __syncwarp();
}

// Bits of a stream from its end downwards. Words below its beginning may be read, none below
// `stop`.
struct BackwardBits {
  const std::uint32_t* words;
  int at;  // of the word `later`
  int stop;
  std::uint32_t soon, later;  // on their way while the bits before them are used
  std::uint64_t bits;         // the next ones at the top
  int valid;
  int left;  // in all; below 0: it has run out

  __device__ void begin(const std::byte* copy, std::uint32_t first, std::uint32_t end) {
    words = reinterpret_cast<const std::uint32_t*>(copy);
    stop = static_cast<int>(first / 4);
    const auto last = static_cast<std::uint32_t>(copy[end - 1]);
    const int top = static_cast<int>(8 * (end - 1)) + 31 - __clz(static_cast<int>(last));
    left = top - static_cast<int>(8 * first);
    at = max((top - 1) >> 5, stop);
    valid = top - 32 * at;
    bits = valid == 0 ? 0 : static_cast<std::uint64_t>(words[at]) << (64 - valid);
    at = max(at - 1, stop);
    soon = words[at];
    at = max(at - 1, stop);
    later = words[at];
  }
  __device__ void refill() {  // to 32 at least
    if (valid > 32) return;
    bits |= static_cast<std::uint64_t>(soon) << (32 - valid);
    valid += 32;
    soon = later;
    at = max(at - 1, stop);
    later = words[at];
  }
  __device__ std::uint32_t top(int unused) const {
    return static_cast<std::uint32_t>(bits >> 32) >> unused;
  }
  __device__ void skip(int length) {
    bits <<= length;
    valid -= length;
    left -= length;
  }
};

// Symbols have[0 … n) of the `left` that a stream has from here on are known; decodes on until
// there are `wanted`, or fewer than kMost more. Returns their number.
__device__ int decode_some(BackwardBits& in, const Shared& shared, int unused, int n, int wanted,
                           int left, std::uint8_t* have) {
  constexpr int kSteps = 4;
  constexpr int kMost = kSteps * kSome;  // that one turn of the loop may bring
  const int by_some = min(wanted, left - kMost);
  while (n < by_some) {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      if (step % 2 == 0) in.refill();  // two steps take 22 bits at most
      const uint2 entry = shared.some[in.top(unused)];
#pragma unroll
      for (int i = 0; i < kSome; ++i) have[n + i] = static_cast<std::uint8_t>(entry.x >> (8 * i));
      n += static_cast<int>(entry.y >> 8);
      in.skip(static_cast<int>(entry.y & 0xff));
    }
  }
  for (; n < wanted; ++n) {
    in.refill();
    const std::uint32_t entry = shared.one[in.top(unused)];
    have[n] = static_cast<std::uint8_t>(entry);
    in.skip(static_cast<int>(entry >> 8));
  }
  return n;
}

// Eight elements of a stream on their way to their page.
struct Group {
  uint2 rest, centres;
  std::byte* to = nullptr;

  __device__ void fetch(const std::byte* copy, const UnpackJob& job, std::uint32_t element) {
    const std::uint32_t head_elements = job.head_bytes / 2;
    const std::uint32_t head = element / head_elements;
    const std::uint32_t in_head = element - head * head_elements;
    rest = *reinterpret_cast<const uint2*>(copy + job.from + element);
    centres = *reinterpret_cast<const uint2*>(copy + job.centres + head * job.width +
                                              in_head % job.width);
    to = job.to + static_cast<std::size_t>(head) * job.pitch + 2 * in_head;
  }
  __device__ void join(uint2 symbols) const {
    std::uint32_t out[4];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const std::uint32_t exponent = (byte_of(symbols, i) + byte_of(centres, i)) & 0xff;
      const std::uint32_t bits = byte_of(rest, i);
      const std::uint32_t word = (bits & 0x80) << 8 | exponent << 7 | (bits & 0x7f);
      out[i / 2] = i % 2 == 0 ? word : out[i / 2] | word << 16;
    }
    *reinterpret_cast<uint4*>(to) = make_uint4(out[0], out[1], out[2], out[3]);
  }
};

// Tile by tile: all lanes fetch what will be joined, lane s decodes stream s, all lanes join 16
// elements each. False: a stream does not end where its last symbol does.
__device__ bool decode_chunk(const std::byte* copy, const UnpackJob& job,
                             const std::uint32_t* streams, int lane, Shared& shared) {
  build_tables(reinterpret_cast<const std::uint8_t*>(copy + job.weights), job.table_bits, lane,
               shared);
  const auto count = static_cast<int>(job.heads * (job.head_bytes / 2) / kStreams);
  const int unused = 32 - job.table_bits;
  const int stream = lane / 8;  // of what this lane joins
  BackwardBits in;
  if (lane < kStreams) in.begin(copy, streams[lane], streams[lane + 1]);
  int known = 0;
  for (int begin = 0; begin < count; begin += kTile) {
    Group groups[2];
    const int mine = lane % 8 * 16;  // in the tile
#pragma unroll
    for (int g = 0; g < 2; ++g) {
      if (begin + mine + 8 * g < count) {
        groups[g].fetch(copy, job,
                        static_cast<std::uint32_t>(stream * count + begin + mine + 8 * g));
      }
    }
    if (lane < kStreams) {
      known = decode_some(in, shared, unused, known, min(kTile, count - begin), count - begin,
                          shared.symbols[lane]);
    }
    __syncwarp();
    const uint4 symbols = *reinterpret_cast<const uint4*>(&shared.symbols[stream][mine]);
    if (groups[0].to != nullptr) groups[0].join(make_uint2(symbols.x, symbols.y));
    if (groups[1].to != nullptr) groups[1].join(make_uint2(symbols.z, symbols.w));
    __syncwarp();
    if (lane < kStreams) {
      auto* over = reinterpret_cast<uint4*>(shared.symbols[lane]);
      over[0] = over[kTile / 16];
      known -= kTile;
    }
  }
  return lane >= kStreams || in.left == 0;
}

__device__ void copy_raw(const std::byte* copy, const UnpackJob& job, int lane) {
  constexpr std::uint32_t kAtOnce = 8;
  for (std::uint32_t head = 0; head < job.heads; ++head) {
    const auto* from = reinterpret_cast<const uint4*>(
        copy + job.from + static_cast<std::size_t>(head) * job.head_bytes);
    auto* to = reinterpret_cast<uint4*>(job.to + static_cast<std::size_t>(head) * job.pitch);
    const std::uint32_t count = job.head_bytes / 16;
    for (std::uint32_t i = static_cast<std::uint32_t>(lane); i < count; i += 32 * kAtOnce) {
      uint4 some[kAtOnce];
#pragma unroll
      for (std::uint32_t k = 0; k < kAtOnce; ++k) {
        if (i + 32 * k < count) some[k] = from[i + 32 * k];
      }
#pragma unroll
      for (std::uint32_t k = 0; k < kAtOnce; ++k) {
        if (i + 32 * k < count) to[i + 32 * k] = some[k];
      }
    }
  }
}

__global__ void __launch_bounds__(32 * kWarps)
    unpack_jobs(const std::byte* copy, int jobs, std::int32_t* failures) {
  __shared__ Shared shared[kWarps];
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int mine = blockIdx.x * kWarps + warp;
  if (mine >= jobs) return;
  const UnpackJob* place = reinterpret_cast<const UnpackJob*>(copy) + mine;
  const UnpackJob job = *place;
  if (job.table_bits == 0) {
    copy_raw(copy, job, lane);
  } else if (!decode_chunk(copy, job, place->streams, lane, shared[warp])) {
    atomicAdd(failures, 1);
  }
}

}  // namespace

cudaError_t unpack(const std::byte* copy, int jobs, std::int32_t* failures, cudaStream_t stream) {
  unpack_jobs<<<(jobs + kWarps - 1) / kWarps, 32 * kWarps, 0, stream>>>(copy, jobs, failures);
  return cudaGetLastError();
}

}  // namespace kvfs::model::cuda
