#include "codec/container/cache_import.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/codec/container/cache_files.h"
#include "tests/codec/container/largest_allocation.h"

namespace kvfs::container {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr std::uint64_t kMostBytes = 1 << 20;

struct File {
  std::string name;
  DType dtype;
  std::vector<std::int32_t> tokens = {-1, -1, -1};
  std::vector<std::int32_t> positions = {0, 1, 2};
  std::vector<std::int32_t> unread = {};
};
void PrintTo(const File& file, std::ostream* out) { *out << file.name; }

class ImportedFiles : public testing::TestWithParam<File> {};

TEST_P(ImportedFiles, GiveTheCacheThatWasSaved) {
  const Bytes bytes = cache_file(GetParam().name);
  const auto import = CacheImport::read(bytes, kMostBytes);
  ASSERT_TRUE(import) << import.error().message();
  const ImportedCache& cache = (*import)->cache();
  EXPECT_EQ(cache.tokens, GetParam().tokens);
  EXPECT_EQ(cache.unread, GetParam().unread);
  EXPECT_THAT(cache.positions, ElementsAre(GetParam().positions));
  ASSERT_EQ(cache.layers.size(), 2U);
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(cache.layers[i].key.dtype, GetParam().dtype);
    EXPECT_THAT(cache.layers[i].key.shape, ElementsAre(2, 3, 4));
    EXPECT_THAT(cache.layers[i].value.shape, ElementsAre(2, 3, 4));
    EXPECT_EQ(floats_of(cache.layers[i].key), counting(48 * i, 24));
    EXPECT_EQ(floats_of(cache.layers[i].value), counting(48 * i + 24, 24));
  }
}

const std::vector<std::int32_t> kIds = {7, 8, 9};
const File kFiles[] = {
    {"tuple_fp32.pt", DType::kF32},
    {"tuple_stream.pt", DType::kBF16},
    {"tuple_4.pkl", DType::kBF16},
    {"no_batch.pt", DType::kF32},
    {"strided.pt", DType::kF32},
    {"dynamic_5.pt", DType::kBF16},
    {"dynamic_5.pkl", DType::kF16},
    {"dynamic_5_0.pkl", DType::kF32},
    {"dynamic_4.pt", DType::kBF16},
    {"dynamic_4.pkl", DType::kBF16},
    {"dict_kv.pt", DType::kF32, {7, 8, 9, 10, 11, 12}, {0, 4, 5}},
    {"dict_past_key_values.pkl.gz", DType::kBF16, kIds},
    {"dict_cache.pkl", DType::kF32, kIds, {0, 1, 2}, {10}},
    {"numpy_2.pkl", DType::kF32, kIds},
    {"numpy_4.pkl", DType::kF32, kIds},
    {"numpy_5.pkl", DType::kF32, kIds},
    {"flat.npz", DType::kF16, kIds},
    {"flat_compressed.npz", DType::kF16},
    {"stacked.npz", DType::kF32},
};
std::string name_of_file(const testing::TestParamInfo<File>& info) {
  std::string name = info.param.name;
  for (char& c : name) c = c == '.' ? '_' : c;
  return name;
}
INSTANTIATE_TEST_SUITE_P(Made, ImportedFiles, testing::ValuesIn(kFiles), name_of_file);

struct Refused {
  std::string file;
  std::string message;
};

TEST(CacheImport, WhatCannotBeAStateIsRefusedInWords) {
  const Refused cases[] = {
      {"two_in_a_batch.pt", "layer 0, key: a batch of 2, [2, 2, 3, 4]"},
      {"lengths_differ.pt", "layer 1: 2 tokens, layer 0 has 3"},
      {"double.pt", "layer 0, key, torch storage: torch.DoubleStorage"},
      {"empty.pt", "cache: no layers"},
      {"no_cache.pt", "a dict without kv, past_key_values or cache: it has 'weight' 'input_ids'"},
      {"too_few_ids.pkl", "input_ids: 2 ids, the cache has 3 positions"},
      {"evil.pt", "opcode REDUCE calls posix.system"},
  };
  for (const Refused& refused : cases) {
    const Bytes bytes = cache_file(refused.file);
    ASSERT_THAT(bytes, testing::Not(IsEmpty())) << refused.file;
    const auto import = CacheImport::read(bytes, kMostBytes);
    ASSERT_FALSE(import) << refused.file;
    EXPECT_THAT(import.error().message(), HasSubstr(refused.message));
    EXPECT_FALSE(import.error().way_out.empty()) << refused.file;
  }
}

TEST(CacheImport, FilesCutAtAnyByteAreRefused) {
  for (const char* name : {"dict_past_key_values.pkl.gz", "flat_compressed.npz", "dynamic_5.pkl"}) {
    const Bytes whole = cache_file(name);
    for (std::size_t size = 0; size < whole.size(); ++size) {
      EXPECT_FALSE(CacheImport::read(ByteSpan(whole).first(size), kMostBytes)) << name << size;
    }
  }
}

TEST(CacheImport, FilesWithAnyByteChangedAreReadOrRefusedAndCostNoMemory) {
  for (const char* name : {"dict_past_key_values.pkl.gz", "flat_compressed.npz", "dynamic_5.pt",
                           "dict_kv.pt", "numpy_5.pkl", "tuple_stream.pt"}) {
    Bytes bytes = cache_file(name);
    for (std::uint8_t& byte : bytes) {
      const std::uint8_t kept = byte;
      for (const int flip : {0x01, 0x80, 0xff}) {
        byte = static_cast<std::uint8_t>(kept ^ flip);
        reset_largest_allocation();
        const auto import = CacheImport::read(bytes, kMostBytes);
        EXPECT_LT(largest_allocation(), 2U << 20) << name;
      }
      byte = kept;
    }
  }
}

TEST(CacheImport, AGzipFileMayNotGrowBeyondItsLimit) {
  const Bytes bytes = cache_file("dict_past_key_values.pkl.gz");
  const auto import = CacheImport::read(bytes, 100);
  ASSERT_FALSE(import);
  EXPECT_EQ(import.error().code, ErrorCode::kTooLarge);
}

}  // namespace
}  // namespace kvfs::container
