#include "engine/sched/planner.h"

#include <algorithm>
#include <cmath>

namespace kvfs::sched {
namespace {

bool sensible(Planner::Seconds took) { return std::isfinite(took.count()) && took.count() > 0; }

double middle(Position first, double tokens) { return static_cast<double>(first) + tokens / 2; }

}  // namespace

void Planner::read(Position first, std::size_t tokens, Seconds took) {
  if (tokens == 0 || first < 0 || !sensible(took)) return;
  const auto n = static_cast<double>(tokens);
  const double p = middle(first, n);
  const double keep = std::exp2(-n / kTokensHalf);
  tokens_ = tokens_ * keep + n;
  positions_ = positions_ * keep + n * p;
  squares_ = squares_ * keep + n * p * p;
  seconds_ = seconds_ * keep + took.count();
  moments_ = moments_ * keep + took.count() * p;
}

void Planner::restored(std::uint64_t bytes, Seconds took) {
  if (bytes == 0 || !sensible(took)) return;
  const auto n = static_cast<double>(bytes);
  const double keep = std::exp2(-n / kBytesHalf);
  bytes_ = bytes_ * keep + n;
  bytes_rates_ = bytes_rates_ * keep + n * (n / took.count());
  doubt_ = 1;
}

// Slices that all stand within a block of each other say nothing of the slope: the term of one
// block's square keeps their noise from being taken for one.
Planner::Line Planner::reading() const {
  constexpr double kBlock = kBlockTokens;
  const double spread = squares_ - positions_ * positions_ / tokens_;
  const double together = moments_ - positions_ * seconds_ / tokens_;
  const double slope = together / (std::max(spread, 0.0) + tokens_ * kBlock * kBlock);
  // A first token costs no less than nothing.
  Line line;
  line.slope = std::clamp(slope, 0.0, positions_ > 0 ? seconds_ / positions_ : 0.0);
  line.base = (seconds_ - line.slope * positions_) / tokens_;
  return line;
}

std::size_t Planner::blocks_to_read(std::span<const Block> missing) {
  if (tokens_ < kEnoughTokens || bytes_ < kEnoughBytes) return 0;
  const Line line = reading();
  const double byte_seconds = doubt_ / bytes_per_second();
  Seconds saved{0};
  std::size_t count = 0;
  for (const Block& block : missing) {
    const auto n = static_cast<double>(block.end - block.first);
    const double reading = n * (line.base + line.slope * middle(block.first, n));
    const double restoring = static_cast<double>(block.bytes) * byte_seconds;
    if (!(reading < restoring)) break;
    saved += Seconds{restoring - reading};
    ++count;
  }
  if (saved < kWorthwhile) return 0;
  if (count == missing.size()) doubt_ *= kDoubt;
  return count;
}

double Planner::tokens_per_second() const { return tokens_ > 0 ? tokens_ / seconds_ : 0; }

double Planner::bytes_per_second() const { return bytes_ > 0 ? bytes_rates_ / bytes_ : 0; }

}  // namespace kvfs::sched
