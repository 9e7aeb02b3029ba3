#include "codec/base/ids.h"

#include <gtest/gtest.h>

#include <unordered_set>

namespace kvfs {
namespace {

ChunkId counting_id() {
  ChunkId id;
  for (std::size_t i = 0; i < id.bytes.size(); ++i) id.bytes[i] = static_cast<std::uint8_t>(i * 17);
  return id;
}

TEST(Ids, ADigestIsPrintedAsItsBytesInOrder) {
  EXPECT_EQ(counting_id().hex(), "00112233445566778899aabbccddeeff");
  EXPECT_EQ(ChunkId{}.hex(), std::string(32, '0'));
}

TEST(Ids, HexIsReadBack) {
  const auto bytes = from_hex("00112233445566778899aabbccddeeff");
  ASSERT_TRUE(bytes) << bytes.error().message();
  EXPECT_EQ(ChunkId{*bytes}, counting_id());
}

TEST(Ids, WhatIsNotHexIsRefusedByName) {
  for (const std::string text :
       {"", "0", "00112233445566778899aabbccddeef", "00112233445566778899aabbccddeeff0",
        "00112233445566778899AABBCCDDEEFF", "0011223344556677 899aabbccddeeff",
        "g0112233445566778899aabbccddeeff"}) {
    const auto bytes = from_hex(text);
    ASSERT_FALSE(bytes) << text;
    EXPECT_EQ(bytes.error().code, ErrorCode::kInvalid);
    EXPECT_NE(bytes.error().message().find("'" + text + "'"), std::string::npos);
  }
}

TEST(Ids, ZeroMeansNone) {
  EXPECT_FALSE(StateId{});
  EXPECT_TRUE(StateId{1});
  EXPECT_FALSE(ChunkId{});
  EXPECT_TRUE(counting_id());
}

TEST(Ids, DigestsAreOrderedByTheirFirstDifferingByte) {
  ChunkId low;
  ChunkId high;
  low.bytes[0] = 1;
  low.bytes[15] = 255;
  high.bytes[0] = 2;
  EXPECT_LT(low, high);
}

TEST(Ids, IdsCanBeKeysOfHashTables) {
  std::unordered_set<ChunkId> chunks{ChunkId{}, counting_id(), counting_id()};
  EXPECT_EQ(chunks.size(), 2U);
  EXPECT_TRUE(chunks.contains(counting_id()));
  std::unordered_set<JobId> jobs{JobId{1}, JobId{2}, JobId{1}};
  EXPECT_EQ(jobs.size(), 2U);
}

}  // namespace
}  // namespace kvfs
