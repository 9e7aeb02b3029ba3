#include "fs/inode.h"

#include <gtest/gtest.h>

#include <set>

namespace kvfs::fs {
namespace {

// The numbers that a mount has shown once and must show again: golden.
TEST(Inode, NumbersStayWhatTheyAre) {
  EXPECT_EQ(ino_of(Fixed::kRoot), 1U);
  EXPECT_EQ(ino_of(Fixed::kStates), 5U);
  EXPECT_EQ(ino_of(StateId{7}, StatePart::kDirectory), 0x0200'0000'0007'0000U);
  EXPECT_EQ(ino_of(StateId{7}, StatePart::kCtl), 0x0200'0000'0007'0008U);
  EXPECT_EQ(ino_of(StateId{7}, param_part(3)), 0x0200'0000'0007'0103U);
  EXPECT_EQ(ino_of(StateId{7}, VersionId{9}, VersionPart::kText), 0x8000'01C0'0000'0901U);
  EXPECT_EQ(ino_of(StateId{7}, VersionId{9}, layer_part(2)), 0x8000'01C0'0000'090AU);
}

TEST(Inode, ANumberSaysWhatItIsOf) {
  const InoParts part = parts_of(ino_of(StateId{123456}, StatePart::kAsk));
  EXPECT_EQ(part.kind, InoKind::kState);
  EXPECT_EQ(part.state, StateId{123456});
  EXPECT_EQ(part.index, static_cast<std::uint16_t>(StatePart::kAsk));

  const InoParts file =
      parts_of(*ino_of(StateId{33'000'000}, VersionId{1'000'000'000}, layer_part(247)));
  EXPECT_EQ(file.kind, InoKind::kVersion);
  EXPECT_EQ(file.state, StateId{33'000'000});
  EXPECT_EQ(file.version, VersionId{1'000'000'000});
  EXPECT_EQ(file.index, 255U);
}

TEST(Inode, StatesThatShareAVersionHaveFilesOfTheirOwn) {
  EXPECT_NE(ino_of(StateId{1}, VersionId{5}, VersionPart::kText),
            ino_of(StateId{2}, VersionId{5}, VersionPart::kText));
}

TEST(Inode, IdsThatDoNotFitHaveNoComposedNumber) {
  EXPECT_TRUE(ino_of(StateId{(1U << 25) - 1}, VersionId{1}, VersionPart::kText));
  EXPECT_FALSE(ino_of(StateId{1U << 25}, VersionId{1}, VersionPart::kText));
  EXPECT_FALSE(ino_of(StateId{1}, VersionId{1U << 30}, VersionPart::kText));
  EXPECT_FALSE(ino_of(StateId{1}, VersionId{1}, layer_part(248)));
}

TEST(Inode, NumbersByArrivalDifferFromEachOtherAndFromThoseOfOtherKinds) {
  InoSource source;
  std::set<Ino> seen{ino_of(StateId{1}, StatePart::kDirectory), reply_ino(StateId{1}, "q")};
  for (int i = 0; i < 1000; ++i) {
    const Ino ino = source.next();
    EXPECT_EQ(parts_of(ino).kind, InoKind::kArrival);
    EXPECT_TRUE(seen.insert(ino).second);
  }
}

}  // namespace
}  // namespace kvfs::fs
