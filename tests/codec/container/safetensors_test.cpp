#include "codec/container/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace kvfs::container {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// The file's bytes up to its data area, for a JSON text that need be no JSON.
Bytes with_length(std::string_view json) {
  ByteWriter out;
  out.number(std::uint64_t{json.size()});
  out.raw(as_bytes(json));
  return out.take();
}

Result<SafetensorsHeader> parse(std::string_view json, std::uint64_t data_size) {
  const Bytes front = with_length(json);
  return parse_safetensors_header(front, front.size() + data_size);
}

SafetensorsHeader layer_header() {
  SafetensorsHeader header;
  header.metadata = {{"format", "pt"}, {"kvfs", "1"}};
  header.tensors = {{"key", DType::kBF16, {1, 3, 2, 4}},
                    {"value", DType::kBF16, {1, 3, 2, 4}},
                    {"positions", DType::kI64, {2}}};
  return header;
}

TEST(Safetensors, TheBytesAreTheGoldenOnes) {
  SafetensorsHeader header = layer_header();
  const Bytes bytes = make_safetensors_header(header);
  const std::string json = R"({"__metadata__":{"format":"pt","kvfs":"1"},)"
                           R"("key":{"dtype":"BF16","shape":[1,3,2,4],"data_offsets":[0,48]},)"
                           R"("value":{"dtype":"BF16","shape":[1,3,2,4],"data_offsets":[48,96]},)"
                           R"("positions":{"dtype":"I64","shape":[2],"data_offsets":[96,112]}})";
  ASSERT_EQ(json.size(), 236U);
  const std::string golden = std::string("\xf0\0\0\0\0\0\0\0", 8) + json + std::string(4, ' ');
  EXPECT_EQ(as_text(bytes), golden);
  EXPECT_EQ(header.data_offset, 248U);
  EXPECT_EQ(header.tensors[2].begin, 96U);
  EXPECT_EQ(header.tensors[2].end, 112U);
}

TEST(Safetensors, WhatIsWrittenIsReadBack) {
  SafetensorsHeader header = layer_header();
  const Bytes bytes = make_safetensors_header(header);
  const auto read = parse_safetensors_header(bytes, bytes.size() + 112);
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_EQ(read->data_offset, header.data_offset);
  EXPECT_EQ(read->metadata, header.metadata);
  ASSERT_EQ(read->tensors.size(), 3U);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(read->tensors[i].name, header.tensors[i].name);
    EXPECT_EQ(read->tensors[i].dtype, header.tensors[i].dtype);
    EXPECT_EQ(read->tensors[i].shape, header.tensors[i].shape);
    EXPECT_EQ(read->tensors[i].begin, header.tensors[i].begin);
    EXPECT_EQ(read->tensors[i].end, header.tensors[i].end);
  }
}

TEST(Safetensors, DataStartsOnAMultipleOfEightWhateverTheNames) {
  for (std::size_t length = 0; length < 17; ++length) {
    SafetensorsHeader header;
    header.tensors = {{std::string(length, 'n'), DType::kU8, {3}}};
    const Bytes bytes = make_safetensors_header(header);
    EXPECT_EQ(bytes.size() % 8, 0U);
    EXPECT_EQ(bytes.size(), header.data_offset);
    EXPECT_TRUE(parse_safetensors_header(bytes, bytes.size() + 3));
  }
}

TEST(Safetensors, NamesWithQuotesAndControlCharactersSurvive) {
  SafetensorsHeader header;
  header.tensors = {{"a\"b\\c\n\x01 \xc3\xa9", DType::kF32, {1}}};
  const Bytes bytes = make_safetensors_header(header);
  const auto read = parse_safetensors_header(bytes, bytes.size() + 4);
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_EQ(read->tensors[0].name, header.tensors[0].name);
}

// The header of safetensors.numpy.save({"b": np.zeros((2, 2), np.float32),
// "a": np.zeros((), np.int32)}, metadata={"who": "me"}), version 0.8.0.
TEST(Safetensors, AFileOfTheReferenceLibraryIsRead) {
  const std::string json =
      R"({"__metadata__":{"who":"me"},"b":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},)"
      R"("a":{"dtype":"I32","shape":[],"data_offsets":[16,20]}}     )";
  ASSERT_EQ(json.size(), 0x90U);
  const auto read = parse(json, 20);
  ASSERT_TRUE(read) << read.error().message();
  ASSERT_EQ(read->tensors.size(), 2U);
  EXPECT_EQ(read->tensors[0].name, "b");
  EXPECT_EQ(read->tensors[0].dtype, DType::kF32);
  EXPECT_THAT(read->tensors[0].shape, ElementsAre(2, 2));
  EXPECT_EQ(read->tensors[1].dtype, DType::kI32);
  EXPECT_TRUE(read->tensors[1].shape.empty());
  EXPECT_EQ(read->metadata.at("who"), "me");
}

TEST(Safetensors, TensorsComeInTheOrderOfTheirBytes) {
  const auto read = parse(R"({"late":{"dtype":"U8","shape":[2],"data_offsets":[3,5]},)"
                          R"("empty":{"dtype":"U8","shape":[0],"data_offsets":[3,3]},)"
                          R"("early":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}})",
                          5);
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_EQ(read->tensors[0].name, "early");
  EXPECT_EQ(read->tensors[1].name, "empty");
  EXPECT_EQ(read->tensors[2].name, "late");
}

struct Hostile {
  std::string name;
  std::string json;
  std::uint64_t data_size;
  std::string why;
};
void PrintTo(const Hostile& hostile, std::ostream* out) { *out << hostile.name; }

class HostileSafetensors : public testing::TestWithParam<Hostile> {};

TEST_P(HostileSafetensors, IsRefusedWithFieldAndReason) {
  const auto read = parse(GetParam().json, GetParam().data_size);
  ASSERT_FALSE(read);
  EXPECT_THAT(read.error().why, HasSubstr(GetParam().why));
}

// A header of one tensor t.
std::string one(std::string_view dtype, std::string_view shape, std::string_view offsets) {
  std::string json = R"({"t":{"dtype":)";
  json.append(dtype).append(R"(,"shape":)").append(shape);
  return json.append(R"(,"data_offsets":)").append(offsets).append("}}");
}

const Hostile kHostile[] = {
    {"NoJson", "hello", 0, "JSON"},
    {"EmptyText", "", 0, "JSON"},
    {"CutJson", R"({"t":{)", 0, "JSON"},
    {"TwoDocuments", "{}{}", 0, "JSON"},
    {"NotUtf8", "{\"\xff\":1}", 0, "JSON"},
    {"NestedDeep", std::string(100000, '['), 0, "JSON"},
    {"ArrayAtTheTop", "[]", 0, "JSON: not an object"},
    {"EntryIsANumber", R"({"t":1})", 0, "tensor 't': not an object"},
    {"MetadataIsAList", R"({"__metadata__":[]})", 0, "__metadata__: not an object"},
    {"MetadataHoldsANumber", R"({"__metadata__":{"a":1}})", 0, "'a': not a string"},
    {"DtypeIsMissing", R"({"t":{"shape":[1],"data_offsets":[0,1]}})", 1, "dtype: not a string"},
    {"DtypeIsUnknown", one(R"("F8_E4M3")", "[1]", "[0,1]"), 1, "'F8_E4M3' is none of"},
    {"ShapeIsMissing", R"({"t":{"dtype":"U8","data_offsets":[0,1]}})", 1, "shape: not a list"},
    {"ShapeIsNegative", one(R"("U8")", "[-1]", "[0,1]"), 1, "shape: not a list"},
    {"ShapeIsAFraction", one(R"("U8")", "[1.0]", "[0,1]"), 1, "shape: not a list"},
    {"ShapeOverflows", one(R"("F32")", "[4611686018427387904,4]", "[0,0]"), 0, "more elements"},
    {"OffsetsAreMissing", R"({"t":{"dtype":"U8","shape":[1]}})", 1, "not two whole numbers"},
    {"ThreeOffsets", one(R"("U8")", "[1]", "[0,1,2]"), 1, "not two whole numbers"},
    {"OffsetsRunBackwards", one(R"("U8")", "[1]", "[1,0]"), 1, "are not the 1 bytes"},
    {"SizeLies", one(R"("BF16")", "[4]", "[0,4]"), 4, "are not the 8 bytes"},
    {"DataIsCutShort", one(R"("U8")", "[4]", "[0,4]"), 3, "have 4 bytes, the file has 3"},
    {"DataIsTooLong", one(R"("U8")", "[4]", "[0,4]"), 5, "have 4 bytes, the file has 5"},
    {"HoleAtTheStart", one(R"("U8")", "[4]", "[1,5]"), 5, "leaves a hole"},
    {"HoleBetween",
     R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
     R"("b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
     3, "tensor 'b', data_offsets: leaves a hole"},
    {"Overlap",
     R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
     R"("b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
     3, "tensor 'b', data_offsets: overlaps"},
    {"NameTwice",
     R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
     R"("a":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})",
     4, "leaves a hole"},
};
std::string name_of_case(const testing::TestParamInfo<Hostile>& info) { return info.param.name; }
INSTANTIATE_TEST_SUITE_P(Files, HostileSafetensors, testing::ValuesIn(kHostile), name_of_case);

TEST(Safetensors, LengthsThatLieAreRefused) {
  const Bytes good = with_length("{}");
  EXPECT_TRUE(parse_safetensors_header(good, good.size()));
  // Cut within the length, and within the text.
  for (std::size_t size = 0; size < good.size(); ++size) {
    EXPECT_FALSE(parse_safetensors_header(ByteSpan(good).first(size), size)) << size;
    EXPECT_FALSE(parse_safetensors_header(ByteSpan(good).first(size), good.size())) << size;
  }
  for (const std::uint64_t length : {std::uint64_t{100'000'001}, ~std::uint64_t{0}}) {
    ByteWriter lie;
    lie.number(length);
    lie.raw(as_bytes("{}"));
    const auto read = parse_safetensors_header(lie.bytes(), ~std::uint64_t{0});
    ASSERT_FALSE(read);
    EXPECT_THAT(read.error().why, HasSubstr("more than 100 MB"));
  }
}

}  // namespace
}  // namespace kvfs::container
