#include "codec/chunk/zh.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/codec/chunk/sample.h"

namespace kvfs::chunk {
namespace {

using testing::ElementsAre;

std::string hex(ByteSpan bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const std::uint8_t byte : bytes) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

Bytes unhex(std::string_view text) {
  Bytes bytes;
  for (std::size_t i = 0; i + 1 < text.size(); i += 2) {
    bytes.push_back(
        static_cast<std::uint8_t>(std::stoi(std::string(text.substr(i, 2)), nullptr, 16)));
  }
  return bytes;
}

// Two heads, 20 positions, 3 channels: channel d of head h has exponents about 120 + 4 h + d.
constexpr ShapeClass kGoldenShape{DType::kBF16, 2, 20, 3};
Bytes golden_elements() {
  ByteWriter out;
  for (unsigned h = 0; h < 2; ++h) {
    for (unsigned p = 0; p < 20; ++p) {
      for (unsigned d = 0; d < 3; ++d) {
        const unsigned exponent = 120 + 4 * h + d + (p % 5 == 4 ? 1 : 0);
        const unsigned sign = (p + d) % 2;
        const unsigned mantissa = (37 * p + 11 * d + 5 * h) % 128;
        out.number(static_cast<std::uint16_t>(sign << 15 | exponent << 7 | mantissa));
      }
    }
  }
  return out.take();
}

constexpr std::string_view kGolden =
    "010100001f00000078797a7c7d7e008b16a530bb4ad560ef7a85149f2ab944cf5ee974830e9928b3"
    "3ecd58e372fd089722ad3cc752e16cf706911cab36c150db66f5008b1aa530bf4ad505901baa35c0"
    "4fda65f47f8a19a42fbe49d463ee7988139e2db843d25de877820d9c27b241cc57e671fc0b9621b0"
    "3bc655e06bfa05901faa35c44fda28b52ffd2078b500008287048010078003c001e000700038001c"
    "000e000100";

TEST(Zh, TheGoldenBytesDecode) {
  Bytes out(kGoldenShape.byte_size());
  const Status status = zh_decode(kGoldenShape, unhex(kGolden), out);
  ASSERT_TRUE(status) << status.error().message();
  EXPECT_EQ(out, golden_elements());
}

// But for the zstd frame, which another version of zstd may write otherwise.
TEST(Zh, TheBytesBeforeTheFrameAreTheGoldenOnes) {
  const auto encoded = zh_encode(kGoldenShape, golden_elements());
  ASSERT_TRUE(encoded);
  const std::size_t frame_at = 8 + 6 + 120;
  ASSERT_GT(encoded->size(), frame_at);
  EXPECT_THAT(ByteSpan(*encoded).first(4), ElementsAre(1, 1, 0, 0));
  std::uint32_t frame_size = 0;
  std::memcpy(&frame_size, encoded->data() + 4, 4);
  EXPECT_EQ(frame_size, encoded->size() - frame_at);
  EXPECT_EQ(hex(ByteSpan(*encoded).subspan(8, 6 + 120)), kGolden.substr(16, 2 * (6 + 120)));
  EXPECT_THAT(ByteSpan(*encoded).subspan(8, 6), ElementsAre(120, 121, 122, 124, 125, 126));
}

TEST(Zh, EachDtypeHasItsPlanesWhereTheFormatSaysSo) {
  struct Case {
    DType dtype;
    std::uint32_t element;
    Bytes rest;  // of one element; of kF32 byte plane first
  };
  for (const Case& c : {Case{DType::kBF16, 0xbf91, {0x91}}, Case{DType::kF16, 0xbe91, {0x91}},
                        Case{DType::kF32, 0xbf912345, {0x91, 0x45, 0x23}}}) {
    const ShapeClass shape{c.dtype, 1, 64, 1};
    ByteWriter elements;
    for (int p = 0; p < 64; ++p) {
      elements.raw({reinterpret_cast<const std::uint8_t*>(&c.element), size_of(c.dtype)});
    }
    const auto encoded = zh_encode(shape, elements.bytes());
    ASSERT_TRUE(encoded);
    const std::uint8_t exponent = c.dtype == DType::kF16 ? 15 : 127;
    EXPECT_EQ((*encoded)[8], exponent);
    EXPECT_THAT(ByteSpan(*encoded).subspan(9, 64), testing::Each(c.rest[0]));
    for (std::size_t p = 0; c.dtype == DType::kF32 && p < 64; ++p) {
      EXPECT_THAT(ByteSpan(*encoded).subspan(9 + 64 + 2 * p, 2), ElementsAre(0x45, 0x23));
    }
    Bytes out(shape.byte_size());
    ASSERT_TRUE(zh_decode(shape, *encoded, out));
    EXPECT_EQ(out, elements.bytes());
  }
}

TEST(Zh, FewPositionsCarryNoCentres) {
  for (const std::uint32_t positions : {15U, 16U}) {
    const ShapeClass shape{DType::kBF16, 1, positions, 64};
    const auto encoded = zh_encode(shape, Bytes(shape.byte_size()));
    ASSERT_TRUE(encoded);
    EXPECT_EQ((*encoded)[1], positions < 16 ? 0 : 1);
    Bytes out(shape.byte_size(), 1);
    ASSERT_TRUE(zh_decode(shape, *encoded, out));
    EXPECT_THAT(out, testing::Each(0));
  }
}

TEST(Zh, TheFrameHoldsNoMatches) {
  // The second half repeats the first: whoever looks for matches takes half of the bits.
  const ShapeClass shape{DType::kBF16, 1, 256, 64};
  std::mt19937 random(5);
  Bytes bytes;
  for (std::size_t i = 0; i < 128 * 64; ++i) {
    append_element(DType::kBF16, std::ldexp(1.0F, static_cast<int>(random() % 8)), bytes);
  }
  const Bytes half = bytes;
  bytes.insert(bytes.end(), half.begin(), half.end());
  const auto encoded = zh_encode(shape, bytes);
  ASSERT_TRUE(encoded);
  const double bits = 8.0 * static_cast<double>(encoded->size() - 8 - 64 - 256 * 64) / (256 * 64);
  EXPECT_GT(bits, 2.9);  // eight equal symbols: 3 bits each, repeated or not
  EXPECT_LT(bits, 3.6);
}

class DamagedZh : public testing::Test {
 protected:
  DamagedZh() : good_(*zh_encode(shape_, gaussian(shape_))) {}
  ErrorCode refused(ByteSpan encoded) const {
    Bytes out(shape_.byte_size());
    const Status status = zh_decode(shape_, encoded, out);
    return status ? ErrorCode::kInternal : status.error().code;
  }
  ShapeClass shape_{DType::kBF16, 2, 32, 16};
  Bytes good_;
};

TEST_F(DamagedZh, CutAtAnyByteItIsCorrupt) {
  for (std::size_t size = 0; size < good_.size(); ++size) {
    EXPECT_EQ(refused(ByteSpan(good_).first(size)), ErrorCode::kCorrupt) << size;
  }
}

TEST_F(DamagedZh, OneByteMoreIsCorrupt) {
  good_.push_back(0);
  EXPECT_EQ(refused(good_), ErrorCode::kCorrupt);
}

TEST_F(DamagedZh, UnknownVersionsFlagsAndLengthsAreCorrupt) {
  for (const std::size_t at : {0, 1, 2, 3, 4, 5, 6, 7}) {
    Bytes bad = good_;
    bad[at] = static_cast<std::uint8_t>(bad[at] ^ 0x42);
    EXPECT_EQ(refused(bad), ErrorCode::kCorrupt) << at;
  }
}

TEST_F(DamagedZh, WithoutItsCentresFlagItIsCorrupt) {
  good_[1] = 0;
  EXPECT_EQ(refused(good_), ErrorCode::kCorrupt);
}

TEST_F(DamagedZh, AnyOtherByteMayChangeTheElementsButNothingElse) {
  for (std::size_t at = 8; at < good_.size(); ++at) {
    Bytes bad = good_;
    bad[at] = static_cast<std::uint8_t>(~bad[at]);
    Bytes out(shape_.byte_size() + 16, 0xaa);
    (void)zh_decode(shape_, bad, MutableByteSpan(out).first(shape_.byte_size()));
    EXPECT_THAT(ByteSpan(out).last(16), testing::Each(0xaa)) << at;
  }
}

TEST_F(DamagedZh, AFrameOfAnotherLengthIsCorrupt) {
  // The frame of 31 positions behind the planes of 32.
  const ShapeClass shorter{DType::kBF16, 2, 31, 16};
  const Bytes other = *zh_encode(shorter, gaussian(shorter));
  const std::size_t frame_at = 8 + 32 + 2 * 32 * 16;
  const std::size_t other_at = 8 + 32 + 2 * 31 * 16;
  Bytes mixed(good_.begin(), good_.begin() + static_cast<long>(frame_at));
  mixed.insert(mixed.end(), other.begin() + static_cast<long>(other_at), other.end());
  const auto size = static_cast<std::uint32_t>(other.size() - other_at);
  std::memcpy(mixed.data() + 4, &size, sizeof size);
  EXPECT_EQ(refused(mixed), ErrorCode::kCorrupt);
}

TEST_F(DamagedZh, AnotherShapeIsCorrupt) {
  for (const ShapeClass shape :
       {ShapeClass{DType::kBF16, 2, 33, 16}, ShapeClass{DType::kBF16, 2, 31, 16},
        ShapeClass{DType::kF32, 2, 32, 16}, ShapeClass{DType::kI32, 2, 32, 16},
        ShapeClass{DType::kBF16, 0, 32, 16}}) {
    Bytes out(shape.byte_size());
    const Status status = zh_decode(shape, good_, out);
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().code, ErrorCode::kCorrupt);
  }
}

TEST_F(DamagedZh, AShapeWhoseSizeWrapsAroundIsCorrupt) {
  // 2^32 * 2^30 elements of 4 bytes are 2^64: the room looks empty, and must not be written.
  const ShapeClass vast{DType::kF32, 1U << 15, 1U << 31, 1U << 15};
  EXPECT_FALSE(zh_decode(vast, good_, {}));
  EXPECT_FALSE(zh_encode(vast, {}));
}

}  // namespace
}  // namespace kvfs::chunk
