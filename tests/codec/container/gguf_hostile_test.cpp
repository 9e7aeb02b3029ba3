// Files made to mislead the reader. Each must be refused with the file, the field and the reason,
// and without an allocation that only the lie would justify.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "codec/container/gguf.h"
#include "tests/codec/container/gguf_writer.h"
#include "tests/codec/container/largest_allocation.h"

namespace kvfs::container {
namespace {

using testing::HasSubstr;

constexpr std::uint64_t kHuge = std::uint64_t{1} << 62;
constexpr std::size_t kModest = 64 << 10;  // bytes; the files are below 1 KiB

struct Hostile {
  std::string name;  // of the test
  ErrorCode code;
  std::string field;
  std::string reason;
  std::function<void(GgufWriter&)> write;
};
void PrintTo(const Hostile& hostile, std::ostream* out) { *out << hostile.name; }

class HostileGguf : public testing::TestWithParam<Hostile> {};

TEST_P(HostileGguf, IsRefusedWithFileFieldAndReason) {
  GgufWriter writer;
  GetParam().write(writer);
  const FileOf disk(GetParam().name + ".gguf", writer.bytes());
  reset_largest_allocation();
  const auto file = GgufFile::open(disk.path());
  EXPECT_LT(largest_allocation(), kModest);
  ASSERT_FALSE(file);
  EXPECT_EQ(file.error().code, GetParam().code) << file.error().message();
  EXPECT_THAT(file.error().what, HasSubstr(disk.path().string()));
  EXPECT_THAT(file.error().why, HasSubstr(GetParam().field));
  EXPECT_THAT(file.error().why, HasSubstr(GetParam().reason));
  EXPECT_FALSE(file.error().way_out.empty());
}

constexpr auto kCorrupt = ErrorCode::kCorrupt;
constexpr auto kUnsupported = ErrorCode::kUnsupported;

// A header of one key and nothing else.
GgufWriter& one_key(GgufWriter& w) { return w.header(0, 1); }
// A header of one tensor and nothing else.
GgufWriter& one_tensor(GgufWriter& w) { return w.header(1, 0); }

const Hostile kHeaders[] = {
    {"EmptyFile", kCorrupt, "magic", "empty", [](auto&) {}},
    {"MagicCutShort", kCorrupt, "magic", "the file ends at byte 3",
     [](auto& w) { w.data(3, 'G'); }},
    {"OtherMagic", ErrorCode::kInvalid, "magic", "not a GGUF file",
     [](auto& w) { w.data(64, 'x'); }},
    {"BigEndianMagic", kUnsupported, "magic", "big-endian",
     [](auto& w) { w.number(std::uint32_t{0x47475546}).data(64, 0); }},
    {"BigEndianVersion", kUnsupported, "version", "big-endian",
     [](auto& w) { w.header(0, 0, 3U << 24); }},
    {"VersionCutShort", kCorrupt, "version", "the file ends",
     [](auto& w) { w.number(std::uint32_t{0x46554747}).data(2, 0); }},
    {"Version0", kUnsupported, "version", "version 0", [](auto& w) { w.header(0, 0, 0); }},
    {"Version1", kUnsupported, "version", "version 1", [](auto& w) { w.header(0, 0, 1); }},
    {"Version4", kUnsupported, "version", "version 4", [](auto& w) { w.header(0, 0, 4); }},
    {"TensorCountCutShort", kCorrupt, "tensor count", "the file ends",
     [](auto& w) { w.number(std::uint32_t{0x46554747}).number(3U).data(4, 0); }},
    {"MetadataCountCutShort", kCorrupt, "metadata count", "the file ends",
     [](auto& w) {
       w.number(std::uint32_t{0x46554747}).number(3U).number(std::uint64_t{0}).data(7, 0);
     }},
    {"TensorCountLies", kCorrupt, "tensor count", "do not fit",
     [](auto& w) { w.header(kHuge, 0).data(100); }},
    {"MetadataCountLies", kCorrupt, "metadata count", "do not fit",
     [](auto& w) { w.header(0, kHuge).data(100); }},
    {"OneTensorTooFew", kCorrupt, "tensor count", "do not fit",
     [](auto& w) { w.header(2, 0).tensor("a", {1}, 0, 0); }},
};

const Hostile kMetadata[] = {
    {"KeyLengthCutShort", kCorrupt, "metadata key 2 of 2, name", "the file ends",
     [](auto& w) { w.header(0, 2).key("a", 10).number(std::uint64_t{1}).data(5, 0); }},
    {"KeyLengthLies", kCorrupt, "metadata key 1 of 1, name", "60000 bytes, but the file has 32",
     [](auto& w) { one_key(w).number(std::uint64_t{60000}).data(32); }},
    {"KeyLengthIsHuge", kCorrupt, "metadata key 1 of 1, name", "at most 65535",
     [](auto& w) { one_key(w).number(kHuge).data(32); }},
    {"KeyIsEmpty", kCorrupt, "metadata key 1 of 1, name", "empty",
     [](auto& w) { one_key(w).key("", 4).data(4); }},
    {"KeyAppearsTwice", kCorrupt, "metadata key 'twin'", "twice",
     [](auto& w) { w.header(0, 2).key("twin", 4).data(4).key("twin", 4).data(4); }},
    {"KindIsUnknown", kCorrupt, "metadata key 'odd', kind", "unknown kind 13",
     [](auto& w) { one_key(w).key("odd", 13).data(8); }},
    {"ValueCutShort", kCorrupt, "metadata key 'number', value", "the file ends",
     [](auto& w) { one_key(w).key("number", 10).data(7); }},
    {"StringLengthLies", kCorrupt, "metadata key 'text', value", "but the file has 8 left",
     [](auto& w) { one_key(w).key("text", 8).number(std::uint64_t{9}).data(8); }},
    {"StringIsOfSixteenMiB", kCorrupt, "metadata key 'text', value", "at most 16777216",
     [](auto& w) {
       constexpr std::uint64_t length = (std::uint64_t{16} << 20) + 1;
       one_key(w).key("text", 8).number(length).data(length);
     }},
    {"StringLengthIsHuge", kCorrupt, "metadata key 'text', value", "at most 16777216",
     [](auto& w) { one_key(w).key("text", 8).number(~std::uint64_t{0}).data(8); }},
    {"BooleanIsTwo", kCorrupt, "metadata key 'flag', value", "a boolean of 2",
     [](auto& w) { one_key(w).key("flag", 7).number(std::uint8_t{2}); }},
    {"ArrayHeadCutShort", kCorrupt, "metadata key 'list', array length", "the file ends",
     [](auto& w) { one_key(w).key("list", 9).number(4U).data(7); }},
    {"ArrayOfUnknownKind", kCorrupt, "metadata key 'list', array kind", "unknown kind 99",
     [](auto& w) { one_key(w).key("list", 9).array(99, 1).data(8); }},
    {"ArrayLengthLies", kCorrupt, "metadata key 'list', array length", "do not fit",
     [](auto& w) { one_key(w).key("list", 9).array(4, 26).data(100); }},
    {"ArrayLengthWrapsAround", kCorrupt, "metadata key 'list', array length", "do not fit",
     [](auto& w) { one_key(w).key("list", 9).array(10, std::uint64_t{1} << 61).data(100); }},
    {"ArrayOfStringsIsHuge", kCorrupt, "metadata key 'list', array length", "do not fit",
     [](auto& w) { one_key(w).key("list", 9).array(8, kHuge).data(100); }},
    {"StringInArrayLies", kCorrupt, "metadata key 'list', array element", "but the file has",
     [](auto& w) {
       one_key(w).key("list", 9).array(8, 2).text("a").number(std::uint64_t{1000}).data(9);
     }},
    {"StringInArrayIsOfAMiB", kCorrupt, "metadata key 'list', array element", "at most 1048576",
     [](auto& w) {
       constexpr std::uint64_t length = (std::uint64_t{1} << 20) + 1;
       one_key(w).key("list", 9).array(8, 1).number(length).data(length);
     }},
    {"ArrayElementsCutShort", kCorrupt, "metadata key 'list', array element", "the file ends",
     [](auto& w) { one_key(w).key("list", 9).array(8, 2).text("abcdefgh"); }},
    {"ArrayOfArrays", kUnsupported, "metadata key 'list', array kind", "array of arrays",
     [](auto& w) { one_key(w).key("list", 9).array(9, 1).array(9, 1).array(4, 1).data(4); }},
    {"ArrayBeyond63Bits", kCorrupt, "metadata key 'list', array element", "beyond 63 bits",
     [](auto& w) { one_key(w).key("list", 9).array(10, 1).number(~std::uint64_t{0}); }},
    {"ArrayOfOddBooleans", kCorrupt, "metadata key 'list', array element", "a boolean of 7",
     [](auto& w) { one_key(w).key("list", 9).array(7, 1).number(std::uint8_t{7}); }},
    {"AlignmentOf3", kCorrupt, "'general.alignment'", "3 is not a power of two",
     [](auto& w) { one_key(w).key("general.alignment", 4).number(3U); }},
    {"AlignmentOf0", kCorrupt, "'general.alignment'", "0 is not a power of two",
     [](auto& w) { one_key(w).key("general.alignment", 4).number(0U); }},
    {"AlignmentOf2GiB", kCorrupt, "'general.alignment'", "is not a power of two from 8",
     [](auto& w) { one_key(w).key("general.alignment", 4).number(1U << 31); }},
    {"AlignmentIsText", kCorrupt, "'general.alignment'", "not an unsigned number",
     [](auto& w) { one_key(w).key("general.alignment", 8).text("32"); }},
};

const Hostile kTensors[] = {
    {"TensorNameLies", kCorrupt, "tensor 1 of 1, name", "but the file has",
     [](auto& w) { one_tensor(w).number(std::uint64_t{999}).data(64); }},
    {"TensorNameIsEmpty", kCorrupt, "tensor 1 of 1, name", "empty",
     [](auto& w) { one_tensor(w).tensor("", {1}, 0, 0).pad().data(4); }},
    {"TensorNameAppearsTwice", kCorrupt, "tensor 'twin'", "twice",
     [](auto& w) {
       w.header(2, 0).tensor("twin", {1}, 0, 0).tensor("twin", {1}, 0, 0).pad().data(4);
     }},
    {"NoDimensions", kCorrupt, "tensor 'scalar', number of dimensions", "0 is not 1 to 4",
     [](auto& w) { one_tensor(w).tensor("scalar", {}, 0, 0).pad().data(8); }},
    {"FiveDimensions", kCorrupt, "tensor 'deep', number of dimensions", "5 is not 1 to 4",
     [](auto& w) {
       one_tensor(w).tensor("deep", {1, 1, 1, 1, 1}, 0, 0).pad().data(8);
     }},
    {"DimensionOfZero", kCorrupt, "tensor 'flat', dimension", "0 elements",
     [](auto& w) {
       one_tensor(w).tensor("flat", {4, 0}, 0, 0).pad().data(8);
     }},
    {"DimensionsOverflow", kCorrupt, "tensor 'vast', dimension", "more than 2^60",
     [](auto& w) {
       one_tensor(w).tensor("vast", {1ULL << 32, 1ULL << 32}, 0, 0).pad().data(8);
     }},
    {"DimensionsWrapToSmall", kCorrupt, "tensor 'vast', dimension", "more than 2^60",
     [](auto& w) {
       one_tensor(w).tensor("vast", {(1ULL << 63) + 1, 2, 2}, 0, 0).pad().data(8);
     }},
    {"DimensionCutShort", kCorrupt, "tensor 'short', dimension", "the file ends",
     [](auto& w) {
       constexpr std::uint64_t kOne = 1;
       one_tensor(w).text("short").number(4U).number(kOne).number(kOne).number(kOne).data(7);
     }},
    {"TypeCutShort", kCorrupt, "tensor 'eight byte', type", "the file ends",
     [](auto& w) { one_tensor(w).text("eight byte").number(1U).number(std::uint64_t{1}).data(3); }},
    {"OffsetCutShort", kCorrupt, "tensor 'a', offset", "the file ends",
     [](auto& w) {
       one_tensor(w).text("a").number(1U).number(std::uint64_t{1}).number(0U).data(7);
     }},
    {"TypeIsUnknown", kUnsupported, "tensor 'odd', type", "number 1000",
     [](auto& w) { one_tensor(w).tensor("odd", {256}, 1000, 0).pad().data(256); }},
    {"TypeIsRemoved", kUnsupported, "tensor 'odd', type", "number 4",
     [](auto& w) { one_tensor(w).tensor("odd", {256}, 4, 0).pad().data(256); }},
    {"TypeIsKnownByNameAlone", kUnsupported, "tensor 'odd', type", "IQ4_XS",
     [](auto& w) { one_tensor(w).tensor("odd", {256}, 23, 0).pad().data(256); }},
    {"RowIsNoWholeNumberOfBlocks", kCorrupt, "tensor 'part', dimension", "Q4_1 blocks",
     [](auto& w) {
       one_tensor(w).tensor("part", {33, 32}, 3, 0).pad().data(4096);
     }},
    {"OffsetIsNotAligned", kCorrupt, "tensor 'crooked', offset", "alignment 32",
     [](auto& w) { one_tensor(w).tensor("crooked", {1}, 0, 16).pad().data(64); }},
    {"TensorEndsOneByteOutside", kCorrupt, "tensor 'long', offset", "outside the file",
     [](auto& w) { one_tensor(w).tensor("long", {8}, 0, 0).pad().data(31); }},
    {"TensorStartsOutside", kCorrupt, "tensor 'far', offset", "outside the file",
     [](auto& w) { one_tensor(w).tensor("far", {1}, 0, 1 << 20).pad().data(64); }},
    {"OffsetWrapsAround", kCorrupt, "tensor 'far', offset", "outside the file",
     [](auto& w) { one_tensor(w).tensor("far", {1}, 0, ~std::uint64_t{31}).pad().data(64); }},
    {"SizeWrapsAround", kCorrupt, "tensor 'vast', offset", "outside the file",
     [](auto& w) { one_tensor(w).tensor("vast", {(1ULL << 60) - 256}, 14, 0).pad().data(64); }},
    {"DataAreaIsMissing", kCorrupt, "tensor 'a', offset", "outside the file",
     [](auto& w) { one_tensor(w).tensor("a", {1}, 0, 0); }},
};

std::string name_of_case(const testing::TestParamInfo<Hostile>& info) { return info.param.name; }
INSTANTIATE_TEST_SUITE_P(Header, HostileGguf, testing::ValuesIn(kHeaders), name_of_case);
INSTANTIATE_TEST_SUITE_P(Metadata, HostileGguf, testing::ValuesIn(kMetadata), name_of_case);
INSTANTIATE_TEST_SUITE_P(Tensors, HostileGguf, testing::ValuesIn(kTensors), name_of_case);

TEST(HostileGgufs, AFileCutAtAnyByteIsRefused) {
  const Bytes whole = small_gguf();
  const FileOf disk("cut.gguf", whole);
  for (std::size_t size = 0; size < whole.size(); ++size) {
    disk.write(ByteSpan(whole).first(size));
    reset_largest_allocation();
    const auto file = GgufFile::open(disk.path());
    ASSERT_FALSE(file) << "cut at byte " << size;
    ASSERT_EQ(file.error().code, ErrorCode::kCorrupt) << file.error().message();
    ASSERT_LT(largest_allocation(), kModest) << "cut at byte " << size;
  }
  disk.write(whole);
  EXPECT_TRUE(GgufFile::open(disk.path()));
}

TEST(HostileGgufs, NoChangedByteLeadsOutOfTheFile) {
  const Bytes whole = small_gguf();
  const FileOf disk("changed.gguf", whole);
  std::size_t opened = 0;
  for (std::size_t at = 0; at < whole.size(); ++at) {
    for (const int flip : {0x01, 0x80, 0xff}) {
      Bytes changed = whole;
      changed[at] = static_cast<std::uint8_t>(changed[at] ^ flip);
      disk.write(changed);
      reset_largest_allocation();
      const auto file = GgufFile::open(disk.path());
      ASSERT_LT(largest_allocation(), kModest) << "byte " << at;
      if (!file) continue;
      ++opened;
      const ByteSpan all = (*file)->file_bytes();
      for (const GgufTensor& tensor : (*file)->tensors()) {
        ASSERT_GE(tensor.bytes.data(), all.data());
        ASSERT_LE(tensor.bytes.data() + tensor.bytes.size(), all.data() + all.size());
      }
    }
  }
  EXPECT_GT(opened, 0U);  // a change of a value or of a weight is no damage that can be seen
}

TEST(HostileGgufs, WhatIsNoRegularFileIsRefused) {
  EXPECT_EQ(GgufFile::open("/nonexistent/model.gguf").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(GgufFile::open("/").error().code, ErrorCode::kInvalid);
  EXPECT_EQ(GgufFile::open("/dev/null").error().code, ErrorCode::kInvalid);
}

}  // namespace
}  // namespace kvfs::container
