// The read path's attention on random numbers in published shapes, in TFLOP/s: what a prompt of so
// many tokens takes, slices of 512 rows one after the other, of one layer.
//
//   bench_cuda_read [context]
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <stdexcept>
#include <vector>

#include "engine/model/cuda/read.h"

namespace kvfs::model::cuda {
namespace {

constexpr int kPage = 256;
constexpr int kGrid = 512;

void must(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(cudaGetErrorString(error));
}

__nv_bfloat16* noise(std::size_t count) {
  std::mt19937 random(1);
  std::normal_distribution<float> draw;
  std::vector<__nv_bfloat16> values(count);
  for (auto& each : values) each = __float2bfloat16(draw(random));
  void* out = nullptr;
  must(cudaMalloc(&out, count * sizeof(__nv_bfloat16)));
  must(cudaMemcpy(out, values.data(), count * sizeof(__nv_bfloat16), cudaMemcpyHostToDevice));
  return static_cast<__nv_bfloat16*>(out);
}

void measure(const char* name, HeadShape shape, int context) {
  const std::size_t side = static_cast<std::size_t>(shape.kv_heads * kPage * shape.width);
  std::vector<void*> table;
  for (int i = 0; i < context / kPage; ++i) table.push_back(noise(2 * side));
  void* pages = nullptr;
  must(cudaMalloc(&pages, table.size() * sizeof(void*)));
  must(cudaMemcpy(pages, table.data(), table.size() * sizeof(void*), cudaMemcpyHostToDevice));
  const KvPlace kv{static_cast<void* const*>(pages), 0, static_cast<std::int64_t>(side)};
  __nv_bfloat16* rows = noise(static_cast<std::size_t>(kGrid * shape.heads * shape.width));
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
  must(cudaEventCreate(&begin));
  must(cudaEventCreate(&end));
  for (const bool newest : {false, true}) {
    std::vector<float> all;
    for (int i = 0; i < 12; ++i) {
      must(cudaEventRecord(begin));
      for (int at = 0; at < context; at += kGrid) {
        must(attend_rows(rows, {0, kGrid, at}, shape, kv, nullptr, newest));
      }
      must(cudaEventRecord(end));
      must(cudaEventSynchronize(end));
      float ms = 0.0F;
      must(cudaEventElapsedTime(&ms, begin, end));
      if (i >= 2) all.push_back(ms);
    }
    std::sort(all.begin(), all.end());
    const double flops = 2.0 * context * context * shape.heads * shape.width;  // half are masked
    const double ms = static_cast<double>(all[all.size() / 2]);
    std::printf("%s, %d tokens, %s: %.3f ms a layer, %.0f TFLOP/s\n", name, context,
                newest ? "the device's newest instructions" : "mma.sync", ms, flops / ms * 1e-9);
  }
}

}  // namespace
}  // namespace kvfs::model::cuda

int main(int argc, char** argv) {
  try {
    const int context = argc > 1 ? std::atoi(argv[1]) / 512 * 512 : 8192;
    kvfs::model::cuda::measure("135m", {9, 3, 64}, context);
    kvfs::model::cuda::measure("1b", {32, 8, 64}, context);
    kvfs::model::cuda::measure("8b", {32, 8, 128}, context);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_cuda_read: %s\n", error.what());
    return 1;
  }
  return 0;
}
