// Rate at which chunks come from the host's memory to pages, without a model: as they are, and as
// zh, beside the rate of one copy from pinned memory in the same run. 8,192 chunks of 128 KiB, the
// KV of 8,192 tokens of an 8B; normal numbers with a scale for each channel.
//
//   bench_cuda_restore [threads, 12]
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "engine/model/cuda/transfers.h"
#include "tests/codec/chunk/sample.h"

namespace {

using namespace kvfs;
using namespace kvfs::model::cuda;
using Clock = std::chrono::steady_clock;

constexpr chunk::ShapeClass kShape{DType::kBF16, 2, 256, 128};
constexpr std::size_t kChunks = 8192;
constexpr int kRepeats = 7;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Bytes a second of one large copy.
double pinned_rate(std::byte* device, std::size_t bytes) {
  void* host = nullptr;
  if (cudaMallocHost(&host, bytes) != cudaSuccess) return 0.0;
  std::vector<double> rates;
  for (int i = 0; i < kRepeats; ++i) {
    const auto begin = Clock::now();
    cudaMemcpy(device, host, bytes, cudaMemcpyHostToDevice);
    rates.push_back(static_cast<double>(bytes) / seconds_since(begin));
  }
  cudaFreeHost(host);
  return median(rates);
}

// Seconds until all are there.
Result<double> bring(Transfers& transfers, const std::vector<chunk::Encoded>& chunks,
                     std::byte* device, int threads) {
  const auto begin = Clock::now();
  KVFS_ASSIGN(const auto ticket, transfers.open(nullptr));
  std::atomic<std::size_t> next = 0;
  std::atomic<bool> failed = false;
  {
    std::vector<std::jthread> running;
    for (int t = 0; t < threads; ++t) {
      running.emplace_back([&] {
        for (std::size_t i = next++; i < chunks.size(); i = next++) {
          std::byte* to = device + i * kShape.byte_size();
          const Incoming chunk{chunks[i].codec, kShape, chunks[i].bytes, to,
                               kShape.byte_size() / kShape.heads};
          if (!transfers.in(chunk)) failed = true;
        }
      });
    }
  }
  KVFS_TRY(transfers.wait(ticket));
  if (failed) return fail(ErrorCode::kIo, "bring chunks", "one failed");
  return seconds_since(begin);
}

Status run(int threads) {
  const std::size_t bytes = kChunks * kShape.byte_size();
  void* memory = nullptr;
  if (cudaMalloc(&memory, bytes) != cudaSuccess) {
    return fail(ErrorCode::kTooLarge, "take memory on the device", "there is none");
  }
  auto* device = static_cast<std::byte*>(memory);
  const double pinned = pinned_rate(device, bytes);
  const Bytes elements = chunk::gaussian(kShape);
  Transfers transfers(0);
  for (const auto codec : {chunk::CodecId::kRaw, chunk::CodecId::kZh}) {
    const std::vector<chunk::Encoded> chunks(kChunks, chunk::encode(codec, kShape, elements));
    std::vector<double> seconds;
    for (int i = 0; i <= kRepeats; ++i) {
      KVFS_ASSIGN(const double took, bring(transfers, chunks, device, threads));
      if (i > 0) seconds.push_back(took);  // the first pins its memory
    }
    std::printf(
        "{\"codec\": \"%s\", \"threads\": %d, \"size\": %.3f, \"ms\": %.1f, \"gb_s\": %.1f, "
        "\"pinned_gb_s\": %.1f}\n",
        std::string(chunk::name_of(codec)).c_str(), threads,
        static_cast<double>(chunks[0].bytes.size()) / static_cast<double>(kShape.byte_size()),
        median(seconds) * 1e3, static_cast<double>(bytes) / median(seconds) / 1e9, pinned / 1e9);
  }
  cudaFree(memory);
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  if (const auto done = run(argc > 1 ? std::atoi(argv[1]) : 12); !done) {
    std::fprintf(stderr, "bench_cuda_restore: %s\n", done.error().message().c_str());
    return 1;
  }
  return 0;
}
