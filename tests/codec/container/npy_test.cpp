#include "codec/container/npy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace kvfs::container {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string prefix(std::string_view dict, char major = 1) {
  std::string out = "\x93NUMPY";
  out += major;
  out += '\0';
  out += static_cast<char>(dict.size() & 255);
  out += static_cast<char>(dict.size() >> 8);
  return out.append(dict);
}

Result<NpyHeader> parse(std::string_view dict, std::uint64_t data_size) {
  const std::string front = prefix(dict);
  return parse_npy_header(as_bytes(front), front.size() + data_size);
}

TEST(Npy, TheBytesAreTheGoldenOnes) {
  NpyHeader header{DType::kI32, {2000}, 0};
  const Bytes bytes = make_npy_header(header);
  const std::string dict = "{'descr': '<i4', 'fortran_order': False, 'shape': (2000,), }";
  const std::string golden =
      std::string("\x93NUMPY\x01\0v\0", 10) + dict + std::string(118 - dict.size() - 1, ' ') + "\n";
  EXPECT_EQ(as_text(bytes), golden);
  EXPECT_EQ(header.data_offset, 128U);
}

TEST(Npy, WhatIsWrittenIsReadBack) {
  for (const DType dtype :
       {DType::kI32, DType::kI64, DType::kF32, DType::kF16, DType::kU8, DType::kI8}) {
    for (const auto& shape : std::vector<std::vector<std::uint64_t>>{{}, {0}, {7}, {3, 4, 5}}) {
      NpyHeader header{dtype, shape, 0};
      const Bytes bytes = make_npy_header(header);
      EXPECT_EQ(bytes.size() % 64, 0U);
      EXPECT_EQ(bytes.size(), header.data_offset);
      std::uint64_t size = size_of(dtype);
      for (const std::uint64_t dim : shape) size *= dim;
      const auto read = parse_npy_header(bytes, bytes.size() + size);
      ASSERT_TRUE(read) << read.error().message();
      EXPECT_EQ(read->dtype, dtype);
      EXPECT_EQ(read->shape, shape);
      EXPECT_EQ(read->data_offset, header.data_offset);
    }
  }
}

TEST(Npy, KeysMayComeInAnyOrderAndEitherQuotes) {
  const auto read = parse("{\"shape\":(2, 3),'fortran_order':False,  \"descr\": '<f4'}\n", 24);
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_EQ(read->dtype, DType::kF32);
  EXPECT_THAT(read->shape, ElementsAre(2, 3));
}

struct Hostile {
  std::string name;
  std::string dict;
  std::string why;
};
void PrintTo(const Hostile& hostile, std::ostream* out) { *out << hostile.name; }

class HostileNpy : public testing::TestWithParam<Hostile> {};

TEST_P(HostileNpy, IsRefusedWithFieldAndReason) {
  const auto read = parse(GetParam().dict, 8);
  ASSERT_FALSE(read);
  EXPECT_THAT(read.error().why, HasSubstr(GetParam().why));
}

std::string dict(std::string_view descr, std::string_view order, std::string_view shape) {
  std::string out = "{'descr': ";
  out.append(descr).append(", 'fortran_order': ").append(order);
  return out.append(", 'shape': ").append(shape).append(", }\n");
}

const Hostile kHostile[] = {
    {"NoDict", "hello", "not a dict"},
    {"Empty", "", "not a dict"},
    {"NeverEnds", "{'descr': '<i4', ", "not a dict"},
    {"NoQuoteEnds", "{'descr", "not a dict"},
    {"UnknownKey", "{'evil': 1}", "unknown key 'evil'"},
    {"KeyTwice", "{'descr': '<i4', 'descr': '<i4'}", "'descr' appears twice"},
    {"ShapeIsMissing", "{'descr': '<i4', 'fortran_order': False}", "not all there"},
    {"DescrIsAList", dict("[('a', '<i4')]", "False", "(2,)"), "descr: not a string"},
    {"Objects", dict("'|O'", "False", "(2,)"), "'|O' is none of"},
    {"BigEndian", dict("'>i4'", "False", "(2,)"), "'>i4' is none of"},
    {"FortranOrder", dict("'<i4'", "True", "(1, 2)"), "fortran_order: columns"},
    {"OrderIsANumber", dict("'<i4'", "0", "(2,)"), "fortran_order: neither"},
    {"ShapeIsANumber", dict("'<i4'", "False", "2"), "shape: not a tuple"},
    {"ShapeIsBracedNumber", dict("'<i4'", "False", "(2)"), "shape: not a tuple"},
    {"ShapeIsNegative", dict("'<i4'", "False", "(-2,)"), "whole numbers"},
    {"ShapeBeyond64Bits", dict("'<i4'", "False", "(99999999999999999999,)"), "whole numbers"},
    {"ShapeOverflows", dict("'<i4'", "False", "(4294967296, 4294967296)"), "too many elements"},
    {"TooFewBytes", dict("'<i4'", "False", "(3,)"), "12 bytes of data are due"},
    {"TooManyBytes", dict("'<i4'", "False", "(1,)"), "4 bytes of data are due"},
    {"TextAfterTheDict", dict("'<i4'", "False", "(2,)") + "x", "text after the dict"},
};
std::string name_of_case(const testing::TestParamInfo<Hostile>& info) { return info.param.name; }
INSTANTIATE_TEST_SUITE_P(Files, HostileNpy, testing::ValuesIn(kHostile), name_of_case);

TEST(Npy, TooManyDimensionsAreRefused) {
  std::string shape = "(";
  for (int i = 0; i < 33; ++i) shape += "1,";
  const auto read = parse(dict("'|u1'", "False", shape + ")"), 1);
  ASSERT_FALSE(read);
  EXPECT_THAT(read.error().why, HasSubstr("more than 32"));
}

TEST(Npy, AHeaderCutAtAnyByteIsRefused) {
  NpyHeader header{DType::kI32, {2}, 0};
  const Bytes whole = make_npy_header(header);
  for (std::size_t size = 0; size < whole.size(); ++size) {
    EXPECT_FALSE(parse_npy_header(ByteSpan(whole).first(size), size)) << size;
  }
  EXPECT_TRUE(parse_npy_header(whole, whole.size() + 8));
}

TEST(Npy, OtherFilesAndVersionsAreRefused) {
  EXPECT_EQ(parse_npy_header(as_bytes("PK\x03\x04 a zip file"), 16).error().code,
            ErrorCode::kInvalid);
  const std::string second = prefix(dict("'<i4'", "False", "(2,)"), 2);
  EXPECT_EQ(parse_npy_header(as_bytes(second), second.size() + 8).error().code,
            ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace kvfs::container
