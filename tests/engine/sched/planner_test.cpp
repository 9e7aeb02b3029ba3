// The planner alone: rates in, decision out.
#include "engine/sched/planner.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace kvfs::sched {
namespace {

using Seconds = Planner::Seconds;

constexpr std::uint64_t kTokenBytes = 20'000;

// Blocks of a version of this length, those from `first` on.
std::vector<Planner::Block> blocks(Position length, Position first = 0) {
  std::vector<Planner::Block> out;
  for (; first < length; first += kBlockTokens) {
    const Position end = std::min(first + kBlockTokens, length);
    out.push_back({first, end, static_cast<std::uint64_t>(end - first) * kTokenBytes});
  }
  return out;
}

// One that has read and restored so many tokens in a second, whatever their position.
Planner measured(double read, double restored) {
  Planner planner;
  for (Position at = 0; at < 8192; at += 512) planner.read(at, 512, Seconds{512 / read});
  planner.restored(4096 * kTokenBytes, Seconds{4096 / restored});
  return planner;
}

TEST(Planner, RestoresWhatItKnowsNoRatesOf) {
  Planner planner;
  EXPECT_EQ(planner.blocks_to_read(blocks(2048)), 0U);
  EXPECT_EQ(planner.tokens_per_second(), 0);
  EXPECT_EQ(planner.bytes_per_second(), 0);
  planner.read(0, 4096, Seconds{0.001});
  EXPECT_EQ(planner.blocks_to_read(blocks(2048)), 0U);
  Planner other;
  other.restored(1 << 30, Seconds{3600});
  EXPECT_EQ(other.blocks_to_read(blocks(2048)), 0U);
}

TEST(Planner, TakesTheSooner) {
  EXPECT_EQ(measured(1000, 50'000).blocks_to_read(blocks(2048)), 0U);
  EXPECT_EQ(measured(50'000, 1000).blocks_to_read(blocks(2048)), 8U);
  EXPECT_EQ(measured(50'000, 1000).blocks_to_read(blocks(2000, 1024)), 4U);
}

TEST(Planner, TellsTheRatesThatItMeasured) {
  const Planner planner = measured(1000, 50'000);
  EXPECT_NEAR(planner.tokens_per_second(), 1000, 1);
  EXPECT_NEAR(planner.bytes_per_second(), 50'000.0 * kTokenBytes, 50'000);
}

TEST(Planner, ReadsTheHeadAndRestoresTheTailWhereAttentionMakesLateTokensDearer) {
  Planner planner;
  const auto cost = [](double position) { return 1e-4 + 1e-7 * position; };  // seconds a token
  for (Position at = 0; at < 8192; at += 256) planner.read(at, 256, Seconds{256 * cost(at + 128)});
  planner.restored(4096 * kTokenBytes, Seconds{4096 * cost(2048)});  // dearer than what comes first
  EXPECT_EQ(planner.blocks_to_read(blocks(8192)), 8U);
  EXPECT_EQ(planner.blocks_to_read(blocks(8192, 2048)), 0U);
  EXPECT_EQ(planner.blocks_to_read(blocks(1024)), 4U);
}

TEST(Planner, SlicesOfOnePlaceSayNothingOfAnother) {
  Planner planner;
  // Their noise looks like a steep slope.
  planner.read(1000, 256, Seconds{0.25});
  planner.read(1004, 256, Seconds{0.30});
  planner.restored(4096 * kTokenBytes, Seconds{4096 * 0.0015});
  EXPECT_EQ(planner.blocks_to_read(blocks(4096)), 16U);
}

TEST(Planner, IgnoresNonsense) {
  Planner planner = measured(50'000, 1000);
  const double read = planner.tokens_per_second();
  const double restored = planner.bytes_per_second();
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  constexpr double kInf = std::numeric_limits<double>::infinity();
  for (const double seconds : {0.0, -1.0, kNan, kInf, -kInf}) {
    planner.read(0, 512, Seconds{seconds});
    planner.restored(1 << 20, Seconds{seconds});
  }
  planner.read(0, 0, Seconds{1});
  planner.read(-5, 512, Seconds{1});
  planner.restored(0, Seconds{1});
  EXPECT_EQ(planner.tokens_per_second(), read);
  EXPECT_EQ(planner.bytes_per_second(), restored);
  EXPECT_EQ(planner.blocks_to_read({}), 0U);
  EXPECT_EQ(planner.blocks_to_read(std::vector<Planner::Block>{{0, 0, 0}}), 0U);
}

TEST(Planner, StaysFiniteAtTheEdgesOfTime) {
  Planner planner;
  planner.read(0, 4096, Seconds{1e-300});
  planner.restored(1 << 30, Seconds{1e300});
  EXPECT_EQ(planner.blocks_to_read(blocks(2048)), 8U);
  planner.restored(1 << 30, Seconds{1e-300});
  EXPECT_EQ(planner.blocks_to_read(blocks(2048)), 0U);
  EXPECT_FALSE(std::isnan(planner.tokens_per_second()));
  EXPECT_FALSE(std::isnan(planner.bytes_per_second()));
}

TEST(Planner, RestoresWhereReadingWouldSaveNextToNothing) {
  Planner planner = measured(50'000, 20'000);
  EXPECT_EQ(planner.blocks_to_read(blocks(100)), 0U);  // 2 ms against 5
  EXPECT_EQ(planner.blocks_to_read(blocks(2048)), 8U);
}

TEST(Planner, ASmallRestoreIsNoRate) {
  Planner planner;
  planner.read(0, 4096, Seconds{0.1});
  planner.restored(kTokenBytes, Seconds{0.5});  // threads and lookups, mostly
  EXPECT_EQ(planner.blocks_to_read(blocks(2048)), 0U);
}

TEST(Planner, FollowsADiskThatBecomesSlowAndFastAgain) {
  Planner planner = measured(2000, 50'000);
  for (int i = 0; i < 3; ++i) planner.restored(2048 * kTokenBytes, Seconds{20});
  EXPECT_EQ(planner.blocks_to_read(blocks(2048)), 8U);
  planner.restored(2048 * kTokenBytes, Seconds{0.04});
  EXPECT_EQ(planner.blocks_to_read(blocks(2048)), 0U);
}

TEST(Planner, ARestoreThatIsPassedOverIsTriedAgainInTheEnd) {
  Planner planner = measured(1000, 100);
  int read = 0;
  while (read < 1000 && planner.blocks_to_read(blocks(2048)) > 0) ++read;
  EXPECT_GT(read, 50);
  EXPECT_LT(read, 200);
  planner.restored(2048 * kTokenBytes, Seconds{20.48});  // as slow as ever
  EXPECT_EQ(planner.blocks_to_read(blocks(2048)), 8U);
}

}  // namespace
}  // namespace kvfs::sched
