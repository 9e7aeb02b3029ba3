// Read again or restore: which brings KV that is in the store to the device sooner, by rates
// measured on what was really read and restored.
//
// Pure arithmetic on plain data, with no clock of its own; a value; one thread at a time.
//
// Costs. Reading the token at position p takes a + b·p seconds: its products, and its attention to
// p keys. The line is fitted by least squares through the slices read, each weighted by its tokens.
// Restoring takes seconds a (decoded) byte: the inverse of an exponentially weighted mean of rates,
// each weighted by its bytes. Both halve the weight of what was measured kTokensHalf tokens, or
// kBytesHalf bytes, ago.
//
// The plan. Blocks may be read only from the first missing one on, and may be restored in any
// place. A token's reading only grows dearer with its position and its restoring does not, so the
// two costs cross once at most: reading the blocks before that point and restoring those behind it
// is the least sum there is. All or nothing are its ends.
//
// Before both rates rest on enough (kEnoughTokens, kEnoughBytes) everything is restored: that is
// what most machines do faster, and it leaves the device to others. For the same reason a plan that
// would save less than kWorthwhile restores. A rate that is not measured any more, because
// everything is read, is doubted a little more with every such plan until a restore is tried again.
#pragma once

#include <chrono>
#include <cstdint>
#include <span>

#include "codec/base/ids.h"
#include "codec/base/kv.h"

namespace kvfs::sched {

class Planner {
 public:
  using Seconds = std::chrono::duration<double>;
  static constexpr double kTokensHalf = 8192;
  static constexpr double kBytesHalf = 16 << 20;
  static constexpr double kEnoughTokens = 64;
  static constexpr double kEnoughBytes = 4
                                         << 20;  // of a few bytes the overhead is all that is seen
  static constexpr Seconds kWorthwhile{0.005};
  static constexpr double kDoubt = 0.98;  // of a restore's believed cost, a plan that reads all

  struct Block {  // not on the device, in the store
    Position first = 0;
    Position end = 0;
    std::uint64_t bytes = 0;  // of its KV, decoded
  };

  // What was done, and how long it alone took. Nonsense (nothing done, no time, NaN) is ignored.
  void read(Position first, std::size_t tokens, Seconds took);
  void restored(std::uint64_t bytes, Seconds took);

  // How many of these, in ascending order, are to be read; the rest is to be restored.
  std::size_t blocks_to_read(std::span<const Block> missing);

  double tokens_per_second() const;  // 0: not measured yet
  double bytes_per_second() const;

 private:
  struct Line {  // seconds a token at position p: base + slope · p
    double base = 0;
    double slope = 0;
  };
  Line reading() const;

  // Over slices, by their tokens n and middle position p: n, n·p, n·p², seconds, seconds·p.
  double tokens_ = 0, positions_ = 0, squares_ = 0, seconds_ = 0, moments_ = 0;
  double bytes_ = 0, bytes_rates_ = 0;  // bytes, bytes · rate
  double doubt_ = 1;
};

}  // namespace kvfs::sched
