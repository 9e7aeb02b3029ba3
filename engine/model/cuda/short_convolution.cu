// Gated short convolutions, and what pages keep of their inputs: in two kernels, for an input's
// place is that of an older one, which a row of the same step may still read.
//
// A thread a channel of a row. Inputs B · z of the step's own rows are worked out again from the
// gates, where they are few multiplications away, and rounded as the pages would: so a row's bits
// know neither where the text was cut nor what stands beside it.

#include "engine/model/cuda/kernels.h"
#include "engine/model/cuda/numbers.cuh"

namespace kvfs::model::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPageTokens = 256;

template <class K>
__device__ K input_of(const float* gates, std::int64_t row, int channels, int channel) {
  const float* mine = gates + row * 3 * channels;
  return from_float<K>(mine[channel] * mine[2 * channels + channel]);
}

// Where a page keeps the input of a position.
template <class K>
__device__ K* kept_at(void* const* pages, const ConvolutionRule& rule, int first_page, int position,
                      int channel) {
  K* page = static_cast<K*>(pages[first_page + position / kPageTokens]);
  const int row = position % kPageTokens % rule.taps;
  return page + rule.inputs + std::int64_t{row} * rule.channels + channel;
}

// Whether row `index` is that position of the sequence that has its pages there.
__device__ bool is_at(const RowPlace* places, std::int64_t index, int first_page, int position) {
  return places[index].first_page == first_page && places[index].position == position;
}

template <class T>
__global__ void convolve_kernel(const float* gates, const RowPlace* places, ConvolutionRule rule,
                                void* const* pages, T* out) {
  using K = KvOf<T>;
  const std::int64_t row = blockIdx.y;
  const int channel = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (channel >= rule.channels) return;
  const RowPlace place = places[row];
  float sum = rule.bias[channel];
  for (int k = 0; k < rule.taps; ++k) {
    const int back = rule.taps - 1 - k;
    const int position = place.position - back;
    if (position < 0) continue;
    const bool here = row >= back && is_at(places, row - back, place.first_page, position);
    const K input = here ? input_of<K>(gates, row - back, rule.channels, channel)
                         : *kept_at<K>(pages, rule, place.first_page, position, channel);
    sum = fmaf(rule.weights[std::int64_t{k} * rule.channels + channel], to_float(input), sum);
  }
  const float gate = gates[(row * 3 + 1) * rule.channels + channel];
  out[row * rule.channels + channel] = from_float<T>(sum * gate);
}

template <class K>
__global__ void keep_kernel(const float* gates, const RowPlace* places, int rows,
                            ConvolutionRule rule, void* const* pages) {
  const std::int64_t row = blockIdx.y;
  const int channel = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (channel >= rule.channels) return;
  const auto [position, first_page] = places[row];
  // A later row takes this one's place in its page.
  const int later = position + rule.taps;
  if (row + rule.taps < rows && later / kPageTokens == position / kPageTokens &&
      is_at(places, row + rule.taps, first_page, later)) {
    return;
  }
  *kept_at<K>(pages, rule, first_page, position, channel) =
      input_of<K>(gates, row, rule.channels, channel);
}

}  // namespace

template <class T>
cudaError_t short_convolution(const float* gates, const RowPlace* places, int rows,
                              const ConvolutionRule& rule, void* const* pages, T* out,
                              cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>((rule.channels + kThreads - 1) / kThreads),
                  static_cast<unsigned>(rows));
  convolve_kernel<T><<<grid, kThreads, 0, stream>>>(gates, places, rule, pages, out);
  if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess) return error;
  keep_kernel<KvOf<T>><<<grid, kThreads, 0, stream>>>(gates, places, rows, rule, pages);
  return cudaGetLastError();
}

#define KVFS_FOR(T)                                                          \
  template cudaError_t short_convolution(const float*, const RowPlace*, int, \
                                         const ConvolutionRule&, void* const*, T*, cudaStream_t);
KVFS_FOR(float)
KVFS_FOR(__nv_bfloat16)
KVFS_FOR(__half)
#undef KVFS_FOR

}  // namespace kvfs::model::cuda
