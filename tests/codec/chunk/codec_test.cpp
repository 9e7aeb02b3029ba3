#include "codec/chunk/codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "tests/codec/chunk/sample.h"

namespace kvfs::chunk {
namespace {

using testing::HasSubstr;

Bytes decoded(const Encoded& encoded, const ShapeClass& shape) {
  Bytes out(shape.byte_size(), 0xee);
  const Status status = decode(encoded.codec, shape, encoded.bytes, out);
  EXPECT_TRUE(status) << status.error().message();
  return out;
}

TEST(Codec, RawIsTheBytesAsTheyAre) {
  const ShapeClass shape{DType::kBF16, 2, 5, 8};
  const Bytes bytes = noise(shape);
  const Encoded encoded = encode(CodecId::kRaw, shape, bytes);
  EXPECT_EQ(encoded.codec, CodecId::kRaw);
  EXPECT_EQ(encoded.bytes, bytes);
  EXPECT_EQ(decoded(encoded, shape), bytes);
}

TEST(Codec, RawOfAnotherLengthIsCorrupt) {
  const ShapeClass shape{DType::kBF16, 1, 4, 8};
  Bytes out(shape.byte_size());
  for (const std::size_t size : {std::size_t{0}, out.size() - 1, out.size() + 1}) {
    const Status status = decode(CodecId::kRaw, shape, Bytes(size), out);
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().code, ErrorCode::kCorrupt);
  }
}

TEST(Codec, ZhGivesBackEveryBitOfEveryDtypeAndShape) {
  for (const DType dtype : {DType::kBF16, DType::kF16, DType::kF32}) {
    for (const ShapeClass shape : {ShapeClass{dtype, 3, 256, 64}, ShapeClass{dtype, 1, 255, 128},
                                   ShapeClass{dtype, 5, 17, 33}, ShapeClass{dtype, 2, 300, 7},
                                   ShapeClass{dtype, 3, 15, 64}, ShapeClass{dtype, 1, 2000, 96},
                                   ShapeClass{dtype, 8, 1, 128}, ShapeClass{dtype, 1, 1, 1}}) {
      const Bytes bytes = gaussian(shape);
      EXPECT_EQ(decoded(encode(CodecId::kZh, shape, bytes), shape), bytes);
      const Bytes wild = noise(shape);
      EXPECT_EQ(decoded(encode(CodecId::kZh, shape, wild), shape), wild);
    }
  }
}

TEST(Codec, ZhGivesBackEveryValueOfSixteenBits) {
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    // In this order the 128 elements of a head share their exponent, so that zh has something to
    // gain.
    const ShapeClass shape{dtype, 512, 16, 8};
    ByteWriter all;
    for (unsigned value = 0; value < 65536; ++value) all.number(static_cast<std::uint16_t>(value));
    const Encoded encoded = encode(CodecId::kZh, shape, all.bytes());
    EXPECT_EQ(encoded.codec, CodecId::kZh);
    EXPECT_EQ(decoded(encoded, shape), all.bytes());
  }
}

TEST(Codec, ZhSavesAThirdOfGaussianBf16) {
  const ShapeClass shape{DType::kBF16, 3, 256, 64};
  const Encoded encoded = encode(CodecId::kZh, shape, gaussian(shape));
  EXPECT_EQ(encoded.codec, CodecId::kZh);
  const double ratio =
      static_cast<double>(shape.byte_size()) / static_cast<double>(encoded.bytes.size());
  EXPECT_GT(ratio, 1.48);  // the plane's order-0 entropy bounds it at 1.51
  EXPECT_LT(ratio, 1.53);
}

TEST(Codec, CentringTheChannelsIsWorthItsBytes) {
  // Scales from 2^-20 to 2^20: without centres the exponents would spread over 40 values.
  const ShapeClass shape{DType::kBF16, 1, 256, 64};
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  Bytes bytes;
  for (std::uint32_t p = 0; p < shape.positions; ++p) {
    for (int d = 0; d < shape.width; ++d) {
      append_element(shape.dtype, std::ldexp(normal(random), d % 41 - 20), bytes);
    }
  }
  const Encoded encoded = encode(CodecId::kZh, shape, bytes);
  EXPECT_LT(encoded.bytes.size() * 145, bytes.size() * 100);
  EXPECT_EQ(decoded(encoded, shape), bytes);
}

TEST(Codec, WhatZhCannotShrinkIsStoredRaw) {
  const ShapeClass shape{DType::kBF16, 3, 256, 64};
  const Bytes bytes = noise(shape);
  const Encoded encoded = encode(CodecId::kZh, shape, bytes);
  EXPECT_EQ(encoded.codec, CodecId::kRaw);
  EXPECT_EQ(encoded.bytes, bytes);
}

TEST(Codec, ZhTakesNoIntegersAndNoEmptyChunks) {
  for (const ShapeClass shape :
       {ShapeClass{DType::kI32, 1, 256, 64}, ShapeClass{DType::kI8, 1, 256, 64},
        ShapeClass{DType::kBF16, 3, 0, 64}, ShapeClass{DType::kBF16, 0, 256, 64}}) {
    const Bytes zeros(shape.byte_size());
    const Encoded encoded = encode(CodecId::kZh, shape, zeros);
    EXPECT_EQ(encoded.codec, CodecId::kRaw);
    EXPECT_EQ(decoded(encoded, shape), zeros);
  }
}

TEST(Codec, EncodingNeverGrowsTheBytes) {
  for (std::uint32_t positions = 1; positions <= 40; ++positions) {
    const ShapeClass shape{DType::kBF16, 1, positions, 3};
    const Encoded encoded = encode(CodecId::kZh, shape, gaussian(shape));
    EXPECT_LE(encoded.bytes.size(), shape.byte_size()) << positions;
  }
}

TEST(Codec, ThreadsDoNotDisturbEachOther) {
  std::vector<std::thread> threads;
  std::vector<int> right(4);
  for (std::size_t t = 0; t < right.size(); ++t) {
    threads.emplace_back([&, t] {
      const ShapeClass shape{DType::kBF16, 1, static_cast<std::uint32_t>(100 + t), 64};
      const Bytes bytes = gaussian(shape);
      for (int round = 0; round < 20; ++round) {
        Bytes out(shape.byte_size());
        const Encoded encoded = encode(CodecId::kZh, shape, bytes);
        if (decode(encoded.codec, shape, encoded.bytes, out) && out == bytes) ++right[t];
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(right, testing::Each(20));
}

TEST(Codec, NamesAreReadBackAndUnknownOnesListTheKnown) {
  for (const CodecId codec : {CodecId::kRaw, CodecId::kZh}) {
    EXPECT_EQ(codec_from_name(name_of(codec)).value(), codec);
  }
  const auto unknown = codec_from_name("zip");
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().code, ErrorCode::kInvalid);
  EXPECT_THAT(unknown.error().message(), HasSubstr("raw, zh"));
}

TEST(Codec, NumbersOnDiskNeverChange) {
  EXPECT_EQ(static_cast<int>(CodecId::kRaw), 0);
  EXPECT_EQ(static_cast<int>(CodecId::kZh), 1);
}

TEST(Codec, AnUnknownNumberIsCorrupt) {
  const ShapeClass shape{DType::kBF16, 1, 1, 1};
  Bytes out(2);
  const Status status = decode(CodecId{77}, shape, out, out);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kCorrupt);
  EXPECT_THAT(status.error().message(), HasSubstr("77"));
}

}  // namespace
}  // namespace kvfs::chunk
