// What a logit weighs in a draw, on the host and on a device alike: an integer, so that sums of
// weights do not depend on the order in which they are added, and a text not on where its tokens
// are drawn.
//
// weigh(best, best, …) is 2^kWeightBits; e^((logit − best) / temperature) times that otherwise, cut
// to an integer: what is less likely than the best by 2^−44 is never drawn. Every operation is
// rounded by itself (no fused multiply-add), which is why it has the same bits everywhere. logit ≤
// best.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define KVFS_BOTH_SIDES __host__ __device__ inline
#else
#define KVFS_BOTH_SIDES inline
#endif

namespace kvfs::model {

inline constexpr int kWeightBits = 44;  // 2^19 tokens' weights add up to 63 bits

namespace one_by_one {

#ifdef __CUDA_ARCH__
KVFS_BOTH_SIDES double multiply(double a, double b) { return __dmul_rn(a, b); }
KVFS_BOTH_SIDES double add(double a, double b) { return __dadd_rn(a, b); }
KVFS_BOTH_SIDES float multiply(float a, float b) { return __fmul_rn(a, b); }
KVFS_BOTH_SIDES float add(float a, float b) { return __fadd_rn(a, b); }
KVFS_BOTH_SIDES float divide(float a, float b) { return __fdiv_rn(a, b); }
#else
// The files that include this are compiled with -ffp-contract=off.
KVFS_BOTH_SIDES double multiply(double a, double b) { return a * b; }
KVFS_BOTH_SIDES double add(double a, double b) { return a + b; }
KVFS_BOTH_SIDES float multiply(float a, float b) { return a * b; }
KVFS_BOTH_SIDES float add(float a, float b) { return a + b; }
KVFS_BOTH_SIDES float divide(float a, float b) { return a / b; }
#endif

}  // namespace one_by_one

KVFS_BOTH_SIDES std::uint64_t weigh(float logit, float best, float temperature) {
  using one_by_one::add, one_by_one::multiply, one_by_one::divide;
  constexpr std::uint64_t one = std::uint64_t{1} << kWeightBits;
  if (logit == best) return one;
  const double x = static_cast<double>(divide(add(logit, -best), temperature));
  if (!(x > -30.5)) return 0;  // e^−30.5 is less than 2^−44
  // x = n ln 2 + r; the high half of ln 2 has few bits, so that n times it is exact.
  constexpr double nearest =
      6755399441055744.0;  // 1.5 · 2^52: what is added to it loses its fraction
  const double n = add(add(multiply(x, 1.4426950408889634), nearest), -nearest);
  const double r = add(add(x, -multiply(n, 6.93147180369123816490e-01)),
                       -multiply(n, 1.90821492927058770002e-10));
  constexpr double taylor[] = {1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320,
                               1.0 / 5040,     1.0 / 720,     1.0 / 120,    1.0 / 24,
                               1.0 / 6,        0.5,           1.0,          1.0};
  double e = 1.0 / 479001600;
  for (const double coefficient : taylor) e = add(multiply(e, r), coefficient);
  return static_cast<std::uint64_t>(multiply(e, static_cast<double>(one))) >> static_cast<int>(-n);
}

// Of a sum of weights.
KVFS_BOTH_SIDES std::uint64_t share_of(std::uint64_t sum, float share) {
  return static_cast<std::uint64_t>(
      one_by_one::multiply(static_cast<double>(sum), static_cast<double>(share)));
}
KVFS_BOTH_SIDES std::uint64_t least_weight(float share) {
  return share_of(std::uint64_t{1} << kWeightBits, share);
}

// 64 random bits of (seed, position): Philox4x32-10 (Salmon et al., SC 2011), key = seed, counter =
// position.
KVFS_BOTH_SIDES std::uint64_t random_bits(std::uint64_t seed, std::int64_t position) {
  auto key0 = static_cast<std::uint32_t>(seed);
  auto key1 = static_cast<std::uint32_t>(seed >> 32);
  auto x0 = static_cast<std::uint32_t>(position);
  auto x1 = static_cast<std::uint32_t>(static_cast<std::uint64_t>(position) >> 32);
  std::uint32_t x2 = 0;
  std::uint32_t x3 = 0;
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53U} * x0;
    const std::uint64_t b = std::uint64_t{0xCD9E8D57U} * x2;
    x0 = static_cast<std::uint32_t>(b >> 32) ^ x1 ^ key0;
    x1 = static_cast<std::uint32_t>(b);
    x2 = static_cast<std::uint32_t>(a >> 32) ^ x3 ^ key1;
    x3 = static_cast<std::uint32_t>(a);
    key0 += 0x9E3779B9U;
    key1 += 0xBB67AE85U;
  }
  return static_cast<std::uint64_t>(x0) << 32 | x1;
}

// A point of [0, sum): the first token whose weight, added to those of lower ids, exceeds it is
// drawn.
KVFS_BOTH_SIDES std::uint64_t point_of(std::uint64_t bits, std::uint64_t sum) {
#ifdef __CUDA_ARCH__
  return __umul64hi(bits, sum);
#else
  const std::uint64_t high = (bits >> 32) * (sum >> 32);
  const std::uint64_t middle = (bits >> 32) * (sum & 0xFFFFFFFFU);
  const std::uint64_t other = (bits & 0xFFFFFFFFU) * (sum >> 32);
  const std::uint64_t low = (bits & 0xFFFFFFFFU) * (sum & 0xFFFFFFFFU);
  const std::uint64_t carry = ((low >> 32) + (middle & 0xFFFFFFFFU) + (other & 0xFFFFFFFFU)) >> 32;
  return high + (middle >> 32) + (other >> 32) + carry;
#endif
}

}  // namespace kvfs::model
