// Drawing tokens. A block a row, which goes over its logits a few times (they are in the L2 cache):
//
//   change the few that are penalized → the best ─ temperature 0: done
//     → top-k, top-p: the least key that stays, by its digits of 8 bits, 4 passes or 8
//     → sums of weights by segments of the ids → the segment of the point → its segments …
//
// A key is a logit as an ordered integer and, below it, the id's complement: the total order of the
// host's candidates.

#include "engine/model/cuda/draw.h"

#include "engine/model/cuda/chain.cuh"
#include "engine/model/weigh.h"

namespace kvfs::model::cuda {
namespace {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / 32;
constexpr int kDigits = 256;
constexpr int kAtOnce = 8;  // loads of a thread on their way

using Key = unsigned long long;
using Sum = unsigned long long;

__device__ Key key_of(float logit, int id) {
  const unsigned bits = __float_as_uint(__fadd_rn(logit, 0.0F));  // −0 is 0
  const unsigned ordered = (bits >> 31) != 0 ? ~bits : bits | 0x80000000U;
  return isnan(logit) ? 0 : Key{ordered} << 32 | ~static_cast<unsigned>(id);
}
__device__ int id_of(Key key) { return static_cast<int>(~static_cast<unsigned>(key)); }
__device__ float logit_of(Key key) {
  const auto ordered = static_cast<unsigned>(key >> 32);
  return __uint_as_float((ordered >> 31) != 0 ? ordered & 0x7FFFFFFFU : ~ordered);
}

template <class Take>
__device__ void for_each_logit(const float* logits, int vocab, const Take& take) {
  for (int first = static_cast<int>(threadIdx.x); first < vocab; first += kAtOnce * kThreads) {
    float values[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int id = first + i * kThreads;
      if (id < vocab) values[i] = logits[id];
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int id = first + i * kThreads;
      if (id < vocab) take(values[i], id);
    }
  }
}

__device__ float changed(float logit, const DrawRow& row, const LogitChange& change) {
  using one_by_one::add, one_by_one::divide, one_by_one::multiply;
  if (change.bias != 0.0F) logit = add(logit, change.bias);
  if (change.repeated != 0 && row.repeat_penalty != 1.0F) {
    logit = logit > 0.0F ? divide(logit, row.repeat_penalty) : multiply(logit, row.repeat_penalty);
  }
  if (change.count != 0 && (row.presence_penalty != 0.0F || row.frequency_penalty != 0.0F)) {
    const float times = multiply(static_cast<float>(change.count), row.frequency_penalty);
    logit = add(logit, -add(times, row.presence_penalty));
  }
  return logit;
}

__device__ void change_logits(const DrawStep& step, const DrawRow& row, float* logits) {
  __shared__ int known[kMostAhead];  // whether `changes` has the unheard token
  const int thread = static_cast<int>(threadIdx.x);
  if (thread < kMostAhead) known[thread] = 0;
  __syncthreads();
  for (int i = row.changes_begin + thread; i < row.changes_end; i += kThreads) {
    LogitChange change = step.changes[i];
    for (int u = 0; u < row.unheard; ++u) {
      if (step.drawn[row.unheard_at[u]] != change.token) continue;
      known[u] = 1;
      ++change.count;
      change.repeated = 1;
    }
    logits[change.token] = changed(logits[change.token], row, change);
  }
  __syncthreads();
  if (thread < row.unheard && known[thread] == 0) {
    LogitChange change{step.drawn[row.unheard_at[thread]], 0.0F, 0, 1};
    bool first = true;
    for (int u = 0; u < row.unheard; ++u) {
      if (step.drawn[row.unheard_at[u]] != change.token) continue;
      first = first && u >= thread;
      ++change.count;
    }
    if (first) logits[change.token] = changed(logits[change.token], row, change);
  }
  __syncthreads();
}

__device__ Key best_of(const float* logits, int vocab) {
  __shared__ Key of_warps[kWarps];
  Key best = 0;
  for_each_logit(logits, vocab, [&](float value, int id) { best = max(best, key_of(value, id)); });
  for (int d = 16; d > 0; d /= 2) best = max(best, __shfl_xor_sync(~0U, best, d));
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = best;
  __syncthreads();
  best = of_warps[threadIdx.x % 32];
  for (int d = 16; d > 0; d /= 2) best = max(best, __shfl_xor_sync(~0U, best, d));
  __syncthreads();
  return best;
}

__device__ Sum sum_of_warp(Sum sum) {
  for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(~0U, sum, d);
  return sum;
}

// Where, going through 32 sums lane by lane, `point` is passed; it becomes what is left of it
// there.
__device__ int lane_of(Sum sum, Sum& point) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  Sum through = sum;
  for (int d = 1; d < 32; d *= 2) {
    const Sum before = __shfl_up_sync(~0U, through, d);
    if (lane >= d) through += before;
  }
  const unsigned passed = __ballot_sync(~0U, through > point);
  const int found = passed == 0 ? 31 : __ffs(static_cast<int>(passed)) - 1;
  point -= __shfl_sync(~0U, through - sum, found);
  return found;
}

// Keys from the greatest down until their masses pass `point`: the last of them. mass(value, id) is
// that of a key; equal logits have equal masses.
template <class Mass>
__device__ Key last_key(const float* logits, int vocab, Sum point, const Mass& mass) {
  // A lane's own column of sums, so that a warp's threads do not wait for each other.
  extern __shared__ Sum sums[];  // [kDigits][32]
  __shared__ Sum digit_sums[kDigits];
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  Key prefix = 0;
  for (int shift = 56; shift >= 0; shift -= 8) {
    for (int i = thread; i < kDigits * 32; i += kThreads) sums[i] = 0;
    __syncthreads();
    for_each_logit(logits, vocab, [&](float value, int id) {
      const Key key = key_of(value, id);
      if (shift < 56 && (key ^ prefix) >> (shift + 8) != 0) return;
      const Sum its = mass(value, key);
      if (its != 0) atomicAdd(&sums[static_cast<int>(key >> shift & 255U) * 32 + lane], its);
    });
    __syncthreads();
    if (thread < kDigits) {
      Sum sum = 0;
      for (int i = 0; i < 32; ++i) sum += sums[thread * 32 + (lane + i) % 32];
      digit_sums[kDigits - 1 - thread] = sum;  // the greatest digit first
    }
    __syncthreads();
    Sum of_eight = 0;
    for (int i = 0; i < 8; ++i) of_eight += digit_sums[lane * 8 + i];
    int place = lane_of(of_eight, point) * 8;
    while (place % 8 < 7 && digit_sums[place] <= point) point -= digit_sums[place++];
    const Sum here = digit_sums[place];
    prefix |= static_cast<Key>(kDigits - 1 - place) << shift;
    __syncthreads();
    // One logit is left, of one token: its id does not matter.
    if (shift == 32 && here == mass(logit_of(prefix), prefix | 0xFFFFFFFFU)) break;
  }
  return prefix;
}

// The token at which the weights, added by id, pass a random point.
template <class Mass>
__device__ int draw_one(const float* logits, int vocab, std::uint64_t random, int best,
                        const Mass& mass) {
  __shared__ Sum of_warps[kWarps];
  const int warp = static_cast<int>(threadIdx.x / 32);
  const int lane = static_cast<int>(threadIdx.x % 32);
  int begin = 0;
  int end = vocab;
  Sum point = 0;
  for (bool whole = true; whole || end - begin > 32; whole = false) {
    const int part = ((end - begin + kWarps - 1) / kWarps + 31) / 32 * 32;
    const int part_end = min(begin + (warp + 1) * part, end);
    Sum sum = 0;
#pragma unroll 4
    for (int id = begin + warp * part + lane; id < part_end; id += 32) {
      sum += mass(logits[id], key_of(logits[id], id));
    }
    sum = sum_of_warp(sum);
    if (lane == 0) of_warps[warp] = sum;
    __syncthreads();
    sum = of_warps[lane];
    if (whole) {
      const Sum total = sum_of_warp(sum);
      if (total == 0) return best;  // logits that are no numbers
      point = point_of(random, total);
    }
    begin += lane_of(sum, point) * part;
    end = min(begin + part, end);
    __syncthreads();
  }
  const int id = begin + lane;
  return begin + lane_of(id < end ? mass(logits[id], key_of(logits[id], id)) : 0, point);
}

__global__ void __launch_bounds__(kThreads) draw_kernel(const DrawStep step) {
  wait_for_previous();
  const DrawRow row = step.draws[blockIdx.x];
  float* logits = step.logits + std::int64_t{blockIdx.x} * step.vocab;
  if (row.changes_begin < row.changes_end || row.unheard > 0) change_logits(step, row, logits);
  const Key best_key = best_of(logits, step.vocab);
  const int best = best_key == 0 ? 0 : id_of(best_key);
  int token = best;
  if (row.temperature > 0.0F) {
    const float greatest = logit_of(best_key);
    Key least = 0;
    if (row.top_k > 0 && row.top_k < step.vocab) {
      least = last_key(logits, step.vocab, static_cast<Sum>(row.top_k) - 1,
                       [](float, Key) -> Sum { return 1; });
    }
    const std::uint64_t least_mass = row.min_p > 0.0F ? least_weight(row.min_p) : 0;
    const auto weight = [&](float value, Key key) -> Sum {
      return key < least ? 0 : weigh(value, greatest, row.temperature);
    };
    if (row.top_p < 1.0F) {
      Sum total = 0;
      __shared__ Sum of_warps[kWarps];
      for_each_logit(logits, step.vocab,
                     [&](float value, int id) { total += weight(value, key_of(value, id)); });
      total = sum_of_warp(total);
      if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = total;
      __syncthreads();
      total = sum_of_warp(of_warps[threadIdx.x % 32]);
      const std::uint64_t wanted = share_of(total, row.top_p);
      if (total != 0) {
        least = max(least, last_key(logits, step.vocab, wanted == 0 ? 0 : wanted - 1, weight));
      }
    }
    token = draw_one(logits, step.vocab, random_bits(row.seed, row.position), best,
                     [&](float value, Key key) -> Sum {
                       const Sum its = weight(value, key);
                       return its < least_mass ? 0 : its;
                     });
  }
  if (threadIdx.x == 0) {
    step.drawn[row.drawn_at] = token;
    step.to_host[row.drawn_at] = token;
    step.draws[blockIdx.x].position = row.position + 1;
    step.draws[blockIdx.x].drawn_at = next_drawn_at(row.drawn_at);
    step.places[blockIdx.x].position += 1;
    step.tokens[blockIdx.x] = given_as(row.drawn_at);
  }
}

}  // namespace

cudaError_t draw(const DrawStep& step, cudaStream_t stream) {
  constexpr std::size_t kShared = kDigits * 32 * sizeof(Sum);
  // As the kernels around it have it: to divide it anew takes a multiprocessor's time.
  const cudaError_t error = cudaFuncSetAttribute(
      draw_kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared);
  if (error != cudaSuccess) return error;
  return launch_chained<draw_kernel>(static_cast<unsigned>(step.rows), kThreads, kShared, stream,
                                     step);
}

}  // namespace kvfs::model::cuda
