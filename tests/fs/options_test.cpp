#include "fs/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace kvfs::fs {
namespace {

using std::chrono::milliseconds;
using ::testing::Contains;
using ::testing::Not;

TEST(Options, OurWordsAreTakenOutAndTheRestGoesToFuse) {
  const auto parsed = parse_options({"allow_other,noblock", "debug"});
  ASSERT_TRUE(parsed);
  EXPECT_TRUE(parsed->behaviour.noblock);
  EXPECT_THAT(parsed->fuse, Contains("allow_other"));
  EXPECT_THAT(parsed->fuse, Contains("debug"));
  EXPECT_THAT(parsed->fuse, Not(Contains("noblock")));
}

TEST(Options, PermissionsAreAlwaysTheKernelsToCheck) {
  const auto parsed = parse_options({});
  ASSERT_TRUE(parsed);
  EXPECT_THAT(parsed->fuse, Contains("default_permissions"));
}

TEST(Options, TheSpoolsDelayIsATime) {
  EXPECT_EQ(parse_options({"spool_delay=1s"})->behaviour.spool_delay, milliseconds(1000));
  EXPECT_EQ(parse_options({"spool_delay=250ms"})->behaviour.spool_delay, milliseconds(250));
  EXPECT_EQ(parse_options({"spool_delay=0.5"})->behaviour.spool_delay, milliseconds(500));
  for (const char* wrong :
       {"spool_delay=", "spool_delay=soon", "spool_delay=-1s", "spool_delay=1h"}) {
    const auto parsed = parse_options({wrong});
    ASSERT_FALSE(parsed) << wrong;
    EXPECT_EQ(parsed.error().code, ErrorCode::kInvalid);
  }
}

TEST(Options, NoblockImpliesADelayUnlessOneIsGiven) {
  EXPECT_EQ(parse_options({"noblock"})->behaviour.spool_delay, milliseconds(1000));
  EXPECT_EQ(parse_options({"spool_delay=0s,noblock"})->behaviour.spool_delay, milliseconds(0));
}

}  // namespace
}  // namespace kvfs::fs
