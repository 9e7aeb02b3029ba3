#include "codec/base/bytes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace kvfs {
namespace {

using testing::ElementsAre;

TEST(Bytes, NumbersAreWrittenLittleEndianWithoutGaps) {
  ByteWriter out;
  out.number(std::uint8_t{1});
  out.number(std::uint32_t{0x05040302});
  out.number(std::int16_t{-2});
  out.text("hi");
  EXPECT_THAT(out.bytes(), ElementsAre(1, 2, 3, 4, 5, 0xfe, 0xff, 2, 0, 0, 0, 'h', 'i'));
}

TEST(Bytes, WhatIsWrittenIsReadBack) {
  ChunkId chunk;
  chunk.bytes[3] = 9;
  ByteWriter out;
  out.number(0.25);
  out.id(StateId{7});
  out.digest(chunk);
  out.text("states");
  const Bytes bytes = out.take();

  ByteReader in(bytes);
  EXPECT_EQ(in.number<double>(), 0.25);
  EXPECT_EQ(in.id<StateId>(), StateId{7});
  EXPECT_EQ(in.digest<ChunkId>(), chunk);
  EXPECT_EQ(in.text(), "states");
  EXPECT_TRUE(in.ok());
  EXPECT_TRUE(in.at_end());
}

TEST(Bytes, AShortReadFailsForGood) {
  const Bytes bytes{1, 2, 3};
  ByteReader in(bytes);
  EXPECT_EQ(in.number<std::uint32_t>(), 0U);
  EXPECT_FALSE(in.ok());
  EXPECT_EQ(in.number<std::uint8_t>(), 0U);  // a byte is there, but the struct is broken
  EXPECT_FALSE(in.ok());
  EXPECT_EQ(in.left(), 0U);
}

TEST(Bytes, ATextLongerThanItsSpanFails) {
  ByteWriter out;
  out.number(std::uint32_t{0xffffffff});
  out.raw(as_bytes("abc"));
  ByteReader in(out.bytes());
  EXPECT_EQ(in.text(), "");
  EXPECT_FALSE(in.ok());
}

TEST(Bytes, AnEmptyTextIsNoFailure) {
  ByteWriter out;
  out.text("");
  ByteReader in(out.bytes());
  EXPECT_EQ(in.text(), "");
  EXPECT_TRUE(in.ok());
  EXPECT_TRUE(in.at_end());
}

}  // namespace
}  // namespace kvfs
