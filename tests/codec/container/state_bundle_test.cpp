#include "codec/container/state_bundle.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "codec/container/cache_import.h"
#include "codec/container/mapped_file.h"
#include "codec/container/zip_file.h"
#include "tests/codec/container/cache_files.h"

namespace kvfs::container {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// Two layers of two heads, keys 4 and values 8 wide, that count their elements, as floats.
BundleSpec small_spec() {
  BundleSpec spec;
  spec.dtype = DType::kF32;
  spec.layers = {{2, 3, 4, 8}, {2, 3, 4, 8}};
  spec.tokens = {7, 8, -1};
  spec.positions = {{0, 1, 2}};
  spec.state = {{"model", "tiny"}, {"origin", "computed"}};
  return spec;
}

Status counting_tensor(std::size_t layer, KvHalf half, std::uint64_t offset, MutableByteSpan out) {
  const std::size_t begin = 100 * layer + (half == KvHalf::kValue ? 50 : 0);
  for (std::size_t i = 0; i < out.size(); ++i) {
    const auto element = static_cast<float>(begin + (offset + i) / 4);
    out[i] = reinterpret_cast<const std::uint8_t*>(&element)[(offset + i) % 4];
  }
  return {};
}

Bytes whole_of(const StateBundle& bundle) {
  Bytes out(bundle.size());
  const auto count = bundle.read(0, out, counting_tensor);
  EXPECT_TRUE(count && *count == out.size());
  return out;
}

constexpr BundleForm kForms[] = {BundleForm::kPt, BundleForm::kPkl, BundleForm::kNpz};

Bytes made(const BundleSpec& spec, BundleForm form = BundleForm::kPt) {
  const auto bundle = StateBundle::make(spec, form);
  EXPECT_TRUE(bundle) << bundle.error().message();
  const Bytes bytes = whole_of(*bundle);
  // For a look at them by torch and NumPy: read_bundles.py.
  if (const char* folder = std::getenv("KVFS_KEEP_BUNDLES")) {
    const std::string name = spec.positions.size() == 1 ? "/one" : "/by_layer";
    const char* suffix = form == BundleForm::kPt    ? ".pt"
                         : form == BundleForm::kPkl ? ".pkl"
                                                    : ".npz";
    std::ofstream(folder + name + suffix, std::ios::binary) << as_text(bytes);
  }
  return bytes;
}

TEST(StateBundle, IsReadBackAsItWasWrittenInEveryForm) {
  for (const BundleForm form : kForms) {
    SCOPED_TRACE(static_cast<int>(form));
    const Bytes bytes = made(small_spec(), form);
    const auto import = CacheImport::read(bytes, 0);
    ASSERT_TRUE(import) << import.error().message();
    const ImportedCache& cache = (*import)->cache();
    EXPECT_THAT(cache.tokens, ElementsAre(7, 8, -1));
    EXPECT_THAT(cache.positions, ElementsAre(ElementsAre(0, 1, 2)));
    EXPECT_EQ(cache.state, small_spec().state);
    ASSERT_EQ(cache.layers.size(), 2U);
    for (std::size_t i = 0; i < 2; ++i) {
      EXPECT_THAT(cache.layers[i].key.shape, ElementsAre(2, 3, 4));
      EXPECT_THAT(cache.layers[i].value.shape, ElementsAre(2, 3, 8));
      EXPECT_EQ(floats_of(cache.layers[i].key), counting(100 * i, 24));
      EXPECT_EQ(floats_of(cache.layers[i].value), counting(100 * i + 50, 48));
    }
  }
}

// The second layer's heads hold positions of their own, the third holds none.
TEST(StateBundle, KeepsThePositionsOfEachLayerAndHeadOfAPrunedState) {
  BundleSpec spec = small_spec();
  spec.layers[1].tokens = 2;
  spec.layers.push_back({2, 0, 4, 8});
  spec.positions = {{0, 1, 2}, {0, 2, 1, 2}, {}};
  for (const BundleForm form : kForms) {
    SCOPED_TRACE(static_cast<int>(form));
    const Bytes bytes = made(spec, form);
    const auto import = CacheImport::read(bytes, 0);
    ASSERT_TRUE(import) << import.error().message();
    EXPECT_EQ((*import)->cache().positions, spec.positions);
    EXPECT_THAT((*import)->cache().layers[1].key.shape, ElementsAre(2, 2, 4));
    EXPECT_THAT((*import)->cache().layers[2].value.shape, ElementsAre(2, 0, 8));
  }
}

TEST(StateBundle, WhatAPrunedStateLostAtItsEndStaysAToken) {
  BundleSpec spec = small_spec();
  spec.layers[0].tokens = spec.layers[1].tokens = 1;
  spec.positions = {{0}};
  spec.state["n_tokens"] = "3";
  const Bytes bytes = made(spec);
  const auto import = CacheImport::read(bytes, 0);
  ASSERT_TRUE(import) << import.error().message();
  EXPECT_THAT((*import)->cache().tokens, ElementsAre(7, 8, -1));
  EXPECT_TRUE((*import)->cache().unread.empty());
}

// The element that counts n is 1 + n / 128.
TEST(StateBundle, NumPyGetsBf16AsTheFloatsThatItsValuesAre) {
  BundleSpec spec = small_spec();
  spec.dtype = DType::kBF16;
  const auto bundle = StateBundle::make(spec, BundleForm::kNpz);
  ASSERT_TRUE(bundle) << bundle.error().message();
  const auto ones = [](std::size_t, KvHalf, std::uint64_t offset, MutableByteSpan out) -> Status {
    for (std::size_t i = 0; i < out.size(); ++i) {
      const auto element = static_cast<std::uint16_t>(0x3f80 + (offset + i) / 2);
      out[i] = static_cast<std::uint8_t>((offset + i) % 2 == 0 ? element : element >> 8);
    }
    return {};
  };
  Bytes whole(bundle->size());
  ASSERT_TRUE(bundle->read(0, whole, ones));
  for (std::size_t at = 0; at < whole.size(); at += 3) {
    Bytes part(5);
    const auto n = bundle->read(at, part, ones);
    ASSERT_TRUE(n);
    ASSERT_TRUE(std::equal(part.begin(), part.begin() + static_cast<std::ptrdiff_t>(*n),
                           whole.begin() + static_cast<std::ptrdiff_t>(at)));
  }
  const auto import = CacheImport::read(whole, 0);
  ASSERT_TRUE(import) << import.error().message();
  EXPECT_EQ((*import)->cache().layers[0].key.dtype, DType::kF32);
  EXPECT_EQ(floats_of((*import)->cache().layers[0].key)[5], 1.0F + 5.0F / 128);
}

TEST(StateBundle, AnyRangeIsThatOfTheWholeThoughTheEndIsReadFirst) {
  for (const BundleForm form : kForms) {
    SCOPED_TRACE(static_cast<int>(form));
    const Bytes whole = made(small_spec(), form);
    const auto bundle = StateBundle::make(small_spec(), form);
    ASSERT_TRUE(bundle) << bundle.error().message();
    Bytes end(100);
    ASSERT_TRUE(bundle->read(whole.size() - end.size(), end, counting_tensor));
    EXPECT_TRUE(std::equal(end.rbegin(), end.rend(), whole.rbegin()));
    for (std::size_t offset = 0; offset <= whole.size() + 1; offset += 7) {
      for (const std::size_t size : {1U, 63U, 500U}) {
        Bytes part(size);
        const auto count = bundle->read(offset, part, counting_tensor);
        ASSERT_TRUE(count) << count.error().message();
        const std::size_t due = offset >= whole.size() ? 0 : std::min(size, whole.size() - offset);
        ASSERT_EQ(*count, due);
        EXPECT_TRUE(std::equal(
            part.begin(), part.begin() + static_cast<std::ptrdiff_t>(due),
            whole.begin() + static_cast<std::ptrdiff_t>(std::min(offset, whole.size()))));
      }
    }
  }
}

TEST(StateBundle, KnowsItsOwnFileWhateverItsTensorsHold) {
  const auto bundle = StateBundle::make(small_spec());
  Bytes file = made(small_spec());
  EXPECT_TRUE(bundle->frames(file));
  const auto import = CacheImport::read(file, 0);
  const ByteSpan key = (*import)->cache().layers[0].key.bytes;
  file[static_cast<std::size_t>(key.data() - file.data())] ^= 1U;
  EXPECT_TRUE(bundle->frames(file));
  file[2] ^= 1U;
  EXPECT_FALSE(bundle->frames(file));
  EXPECT_FALSE(bundle->frames(ByteSpan(file).first(file.size() - 1)));
}

TEST(StateBundle, ItsSizeFollowsFromTheNumberOfTokens) {
  BundleSpec other = small_spec();
  other.tokens = {1'000'000, 0, 0};
  other.positions = {{5, 700, 1'000'000}};
  EXPECT_EQ(StateBundle::make(other)->size(), StateBundle::make(small_spec())->size());
}

TEST(StateBundle, DataOfAPtBeginAtMultiplesOf64) {
  const Bytes bytes = made(small_spec());
  auto zip = ZipFile::open(bytes);
  ASSERT_TRUE(zip) << zip.error().message();
  for (const auto& [name, entry] : zip->entries()) {
    const auto data = zip->bytes_of(name);
    ASSERT_TRUE(data) << data.error().message();
    EXPECT_EQ((data->data() - bytes.data()) % 64, 0) << name;
  }
}

// 12 GB of keys as a hole: all that is not tensors lies in the last, and around each, megabyte.
TEST(StateBundle, BeyondFourGigabytesSizesAndOffsetsAreRight) {
  BundleSpec spec = small_spec();
  spec.layers = {{2, 3, 250'000'000, 8}, {2, 3, 250'000'000, 8}};
  const auto bundle = StateBundle::make(spec);
  ASSERT_TRUE(bundle) << bundle.error().message();
  constexpr std::uint64_t kKeys = 2 * 3 * 4 * std::uint64_t{250'000'000};
  EXPECT_GT(bundle->size(), 2 * kKeys);
  const char* folder = std::getenv("KVFS_KEEP_BUNDLES");
  const std::filesystem::path path =
      (folder != nullptr ? std::string(folder) : testing::TempDir()) + "/huge.pt";
  {
    std::ofstream file(path, std::ios::binary);
    for (const std::uint64_t at :
         {std::uint64_t{0}, kKeys - (1 << 20), bundle->size() - (1 << 20)}) {
      Bytes part(2 << 20);
      const auto count = bundle->read(at, part, counting_tensor);
      ASSERT_TRUE(count) << count.error().message();
      file.seekp(static_cast<std::streamoff>(at));
      file << as_text(ByteSpan(part).first(*count));
    }
  }
  ASSERT_EQ(std::filesystem::file_size(path), bundle->size());
  const auto file = MappedFile::open(path, "bundle");
  ASSERT_TRUE(file) << file.error().message();
  const auto import = CacheImport::read(file->bytes(), 0);
  ASSERT_TRUE(import) << import.error().message();
  const std::vector<ImportedLayer>& layers = (*import)->cache().layers;
  ASSERT_EQ(layers.size(), 2U);
  EXPECT_EQ(layers[1].key.bytes.size(), kKeys);
  EXPECT_EQ(floats_of(layers[0].value), counting(50, 48));
  EXPECT_EQ(floats_of(layers[1].value), counting(150, 48));
  if (folder == nullptr) std::filesystem::remove(path);
}

TEST(StateBundle, SpecsThatDoNotFitAreRefused) {
  BundleSpec none = small_spec();
  none.layers.clear();
  EXPECT_FALSE(StateBundle::make(none));
  BundleSpec whole = small_spec();
  whole.dtype = DType::kI32;
  EXPECT_FALSE(StateBundle::make(whole));
  BundleSpec short_of = small_spec();
  short_of.positions = {{0, 1}};
  const auto bundle = StateBundle::make(short_of);
  ASSERT_FALSE(bundle);
  EXPECT_THAT(bundle.error().why, HasSubstr("2 positions, 3 tokens"));
}

TEST(StateBundle, AFailureToReadATensorIsPassedOn) {
  const auto bundle = StateBundle::make(small_spec());
  Bytes out(bundle->size());
  const auto count = bundle->read(0, out, [](auto, auto, auto, auto) -> Status {
    return fail(ErrorCode::kIo, "chunk", "gone");
  });
  ASSERT_FALSE(count);
  EXPECT_EQ(count.error().code, ErrorCode::kIo);
}

}  // namespace
}  // namespace kvfs::container
