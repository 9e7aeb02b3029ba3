#include "codec/container/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/crc.hpp>
#include <cstdio>
#include <cstdlib>

#include "tests/codec/container/gguf_writer.h"

namespace kvfs::container {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::unique_ptr<GgufFile> open_small(const FileOf& file) {
  auto opened = GgufFile::open(file.path());
  if (!opened) {
    ADD_FAILURE() << opened.error().message();
    return nullptr;
  }
  return *std::move(opened);
}

TEST(Gguf, EveryKindOfValueIsReadAndIntegersAreWidened) {
  const FileOf disk("kinds.gguf", small_gguf());
  const auto file = open_small(disk);
  ASSERT_TRUE(file);
  EXPECT_EQ(file->metadata().size(), 15U);
  EXPECT_EQ(file->string_at("general.architecture").value(), "llama");
  EXPECT_EQ(file->unsigned_at("u8").value(), 200U);
  EXPECT_EQ(std::get<std::int64_t>(file->metadata().at("i8")), -100);
  EXPECT_EQ(file->unsigned_at("u16").value(), 60000U);
  EXPECT_EQ(std::get<std::int64_t>(file->metadata().at("i16")), -30000);
  EXPECT_EQ(file->real_at("i32").value(), -7.0);
  EXPECT_EQ(file->real_at("f32").value(), 0.5);
  EXPECT_TRUE(file->bool_at("bool").value());
  EXPECT_EQ(file->unsigned_at("u64").value(), std::uint64_t{1} << 63);
  EXPECT_EQ(file->real_at("f64").value(), 0.1);
  EXPECT_THAT(file->array_at("texts").value()->strings, ElementsAre("a", "bc"));
  EXPECT_THAT(file->array_at("numbers").value()->integers, ElementsAre(-1, 2, 3));
  EXPECT_THAT(file->array_at("reals").value()->reals, ElementsAre(1.5));
}

TEST(Gguf, TensorsPointToTheirBytesInTheFile) {
  const FileOf disk("tensors.gguf", small_gguf());
  const auto file = open_small(disk);
  ASSERT_TRUE(file);
  ASSERT_EQ(file->tensors().size(), 2U);
  const GgufTensor* weight = file->find_tensor("weight");
  ASSERT_NE(weight, nullptr);
  EXPECT_EQ(weight->type, GgmlType::kQ4_1);
  EXPECT_THAT(weight->dims, ElementsAre(32, 3));
  EXPECT_THAT(weight->bytes, testing::AllOf(testing::SizeIs(60), testing::Each(2)));
  const GgufTensor* norm = file->find_tensor("norm");
  ASSERT_NE(norm, nullptr);
  EXPECT_THAT(norm->bytes, testing::AllOf(testing::SizeIs(16), testing::Each(1)));
  EXPECT_EQ(file->find_tensor("bias"), nullptr);
}

TEST(Gguf, AMissingKeyIsNamedWithWhatWasExpected) {
  const FileOf disk("missing.gguf", small_gguf());
  const auto file = open_small(disk);
  ASSERT_TRUE(file);
  const auto missing = file->unsigned_at("llama.block_count");
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(missing.error().message(),
              testing::AllOf(HasSubstr(disk.path().string()), HasSubstr("'llama.block_count'"),
                             HasSubstr("an unsigned number")));
}

TEST(Gguf, AKeyOfAnotherKindIsRefusedByEveryGetter) {
  const FileOf disk("kind.gguf", small_gguf());
  const auto file = open_small(disk);
  ASSERT_TRUE(file);
  EXPECT_EQ(file->unsigned_at("i8").error().code, ErrorCode::kInvalid);  // negative
  EXPECT_EQ(file->unsigned_at("f32").error().code, ErrorCode::kInvalid);
  EXPECT_EQ(file->real_at("bool").error().code, ErrorCode::kInvalid);
  EXPECT_EQ(file->bool_at("u8").error().code, ErrorCode::kInvalid);
  EXPECT_EQ(file->string_at("texts").error().code, ErrorCode::kInvalid);
  EXPECT_EQ(file->array_at("general.architecture").error().code, ErrorCode::kInvalid);
}

// Lines as make_gguf_golden.py prints them.

std::string crc_of(boost::crc_32_type crc) {
  char text[16];
  std::snprintf(text, sizeof text, "crc %08x", crc.checksum());
  return text;
}
boost::crc_32_type crc(std::string_view text) {
  boost::crc_32_type sum;
  sum.process_bytes(text.data(), text.size());
  return sum;
}

std::string value_text(const GgufValue& value) {
  if (const auto* flag = std::get_if<bool>(&value)) return *flag ? "true" : "false";
  if (const auto* number = std::get_if<std::uint64_t>(&value)) return std::to_string(*number);
  if (const auto* number = std::get_if<std::int64_t>(&value)) return std::to_string(*number);
  if (const auto* real = std::get_if<double>(&value)) {
    char text[64];
    std::snprintf(text, sizeof text, "%.17g", *real);
    return text;
  }
  if (const auto* string = std::get_if<std::string>(&value)) {
    return "text " + std::to_string(string->size()) + " bytes " + crc_of(crc(*string));
  }
  const auto& array = std::get<GgufArray>(value);
  std::string joined;
  for (const std::string& element : array.strings) joined.append(element).push_back('\0');
  for (const auto element : array.integers) {
    joined.append(std::to_string(element)).push_back('\0');
  }
  return "list " + std::to_string(array.strings.size() + array.integers.size()) + " elements " +
         crc_of(crc(joined));
}

std::string tensor_text(const GgufFile& file, const GgufTensor& tensor) {
  std::string dims;
  for (const std::uint64_t dim : tensor.dims) {
    dims.append(dims.empty() ? "" : "x").append(std::to_string(dim));
  }
  const std::ptrdiff_t offset = tensor.bytes.data() - file.file_bytes().data();
  const auto head = tensor.bytes.first(std::min<std::size_t>(tensor.bytes.size(), 4096));
  return "tensor " + tensor.name + " " + std::string(name_of(tensor.type)) + " " + dims + " " +
         std::to_string(offset) + " " + std::to_string(tensor.bytes.size()) + " " +
         crc_of(crc(as_text(head)));
}

std::filesystem::path model_path() {
  if (const char* path = std::getenv("KVFS_MODEL")) return path;
  return std::filesystem::path(KVFS_DEPS_DIR) / "models/SmolLM2-135M-Instruct.Q4_1.gguf";
}

TEST(Gguf, TheDefaultModelIsReadAsTheReferenceReaderReadsIt) {
  ASSERT_TRUE(std::filesystem::exists(model_path()))
      << model_path() << " is missing: run scripts/setup, or set KVFS_MODEL";
  const auto file = GgufFile::open(model_path());
  ASSERT_TRUE(file) << file.error().message();
  std::vector<std::string> lines;
  for (const auto& [key, value] : (*file)->metadata()) {
    lines.push_back("key " + key + " " + value_text(value));
  }
  EXPECT_EQ(lines.size(), 33U);
  for (const GgufTensor& tensor : (*file)->tensors()) lines.push_back(tensor_text(**file, tensor));
  EXPECT_EQ(lines.size(), 33U + 272U);

  std::vector<std::string> golden;
  std::ifstream listing(KVFS_REPO_DIR "/tests/codec/container/smollm2_directory.txt");
  for (std::string line; std::getline(listing, line);) golden.push_back(line);
  EXPECT_EQ(lines, golden);
}

}  // namespace
}  // namespace kvfs::container
