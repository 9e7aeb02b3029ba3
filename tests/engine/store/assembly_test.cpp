// From a state's files back to a version with the same root, whatever its heads hold.
#include "engine/store/assembly.h"

#include <gmock/gmock.h>

#include "codec/container/cache_import.h"
#include "engine/store/bundle_files.h"
#include "engine/store/bundles.h"
#include "tests/engine/store/fixture.h"

namespace kvfs::store {
namespace {

using ::testing::HasSubstr;

// A file with one stretch of it replaced, or its end cut off.
class Damaged final : public FileView {
 public:
  Damaged(std::unique_ptr<FileView> file, std::uint64_t at, std::uint64_t size)
      : bytes_(file->size()) {
    EXPECT_TRUE(file->read(0, bytes_));
    if (at < bytes_.size()) bytes_[at] ^= 1;
    bytes_.resize(std::min<std::uint64_t>(size, bytes_.size()));
  }
  std::uint64_t size() const override { return bytes_.size(); }
  Result<std::size_t> read(std::uint64_t offset, MutableByteSpan out) override {
    if (offset >= bytes_.size()) return 0;
    const std::size_t n = std::min<std::size_t>(out.size(), bytes_.size() - offset);
    std::copy_n(bytes_.begin() + static_cast<std::ptrdiff_t>(offset), n, out.begin());
    return n;
  }

 private:
  Bytes bytes_;
};

class AssemblyTest : public StoreTest {
 protected:
  VersionRecord version_of_blocks(const std::vector<NewBlock>& blocks) {
    VersionRecord record = model.version({});
    record.next_pos = 0;
    for (const NewBlock& block : blocks) {
      record.blocks.push_back(add(block));
      record.next_pos = block.tokens.back().position + 1;
    }
    VersionId id;
    must([&](WriteTransaction& t) -> Status {
      KVFS_ASSIGN(id, t.add_version(record));
      return t.create_state({.name = "s", .version = id}) ? Status()
                                                          : fail(ErrorCode::kInternal, "", "");
    });
    return *store->version(id);
  }
  static std::string json_of(Store& store, const VersionRecord& version) {
    return *read_whole(**state_json_view(store, version), 1 << 20, "state.json");
  }
  StateFiles files_of(const VersionRecord& version) {
    StateFiles files;
    files.tokens = *tokens_view(*store, version);
    for (std::uint16_t i = 0; i < version.layers.size(); ++i) {
      files.layers.push_back(*layer_view(*store, version, i));
    }
    files.text = *read_whole(**text_view(*store, version), 1 << 20, "text");
    return files;
  }
  Result<VersionRecord> assembled(const std::string& json, const StateFiles& files) {
    KVFS_ASSIGN(const StateDocument document, parse_state_json(json));
    KVFS_ASSIGN(const Assembled made, assemble(*store, document, files));
    VersionRecord out;
    const Status written = store->write([&](WriteTransaction& t) -> Status {
      KVFS_ASSIGN(const VersionId id, t.add_version(made.version));
      KVFS_ASSIGN(out, t.version(id));
      return {};
    });
    KVFS_TRY(written);
    return out;
  }
  void expect_round_trip(const std::vector<NewBlock>& blocks) {
    const VersionRecord version = version_of_blocks(blocks);
    const auto again = assembled(json_of(*store, version), files_of(version));
    ASSERT_TRUE(again) << again.error().message();
    EXPECT_EQ(again->root, version.root);
    EXPECT_EQ(again->extents, version.extents);
    EXPECT_EQ(again->text_bytes, version.text_bytes);
    EXPECT_EQ(json_of(*store, *again), json_of(*store, version));
    expect_bundles(version);
    expect_sound();
  }

  // The whole, which any range of it is a range of.
  Bytes bundle_of(const VersionRecord& version, DataPart part) {
    const auto view = bundle_view(*store, version, part);
    EXPECT_TRUE(view) << view.error().message();
    if (!view) return {};
    Bytes whole((*view)->size() + 1);
    const auto got = (*view)->read(0, whole);
    EXPECT_TRUE(got && *got == whole.size() - 1);
    whole.pop_back();
    for (std::size_t at = 0; at < whole.size(); at += 1 + whole.size() / 97) {
      Bytes part_of(701);
      const auto n = (*view)->read(at, part_of);
      EXPECT_TRUE(n && std::equal(part_of.begin(), part_of.begin() + static_cast<std::ptrdiff_t>(*n),
                                  whole.begin() + static_cast<std::ptrdiff_t>(at)));
    }
    return whole;
  }
  void expect_same(const VersionRecord& version, const BundleFacts& facts, StateFiles files) {
    const auto document = parse_bundle_facts(facts);
    ASSERT_TRUE(document) << document.error().message();
    EXPECT_EQ(document->root, version.root);
    const auto made = assemble(*store, *document, files);
    ASSERT_TRUE(made) << made.error().message();
    VersionRecord again;
    must([&](WriteTransaction& t) -> Status {
      KVFS_ASSIGN(const VersionId id, t.add_version(made->version));
      KVFS_ASSIGN(again, t.version(id));
      return {};
    });
    EXPECT_EQ(again.root, version.root);
    EXPECT_EQ(json_of(*store, again), json_of(*store, version));
  }
  StateFiles bundled(const VersionRecord& version,
                     std::vector<std::unique_ptr<FileView>> layers) {
    std::vector<TokenId> tokens;
    const auto known = tokens_of(*store, version);
    for (const BlockToken& token : *known) tokens.push_back(token.token);
    StateFiles files;
    files.tokens = imported_tokens(tokens);
    files.layers = std::move(layers);
    return files;
  }
  void expect_bundles(const VersionRecord& version) {
    const Bytes file = bundle_of(version, DataPart::kBundleSafetensors);
    const auto header = container::parse_safetensors_header(file, file.size());
    ASSERT_TRUE(header) << header.error().message();
    EXPECT_TRUE(has_bundle_order(*header));
    expect_same(version, header->metadata,
                bundled(version, bundled_layers(*header, file, version.layers.size())));
    if (!fits_pt(version)) {
      EXPECT_EQ(bundle_view(*store, version, DataPart::kBundlePt).error().code,
                ErrorCode::kUnsupported);
      return;
    }
    const Bytes pt = bundle_of(version, DataPart::kBundlePt);
    const auto import = container::CacheImport::read(pt, 0);
    if (!import) {  // such caches have layers of one shape
      EXPECT_NE(version.layers[0], version.layers[1]) << import.error().message();
      return;
    }
    const container::ImportedCache& cache = (*import)->cache();
    std::vector<std::unique_ptr<FileView>> layers;
    for (std::size_t i = 0; i < cache.layers.size(); ++i) {
      layers.push_back(imported_layer(cache.layers[i],
                                      cache.positions[cache.positions.size() == 1 ? 0 : i],
                                      version.kv_dtype));
    }
    expect_same(version, cache.state, bundled(version, std::move(layers)));
  }
};

TEST_F(AssemblyTest, AnOrdinaryStateComesBack) {
  model.layers = {{3, 16, 24}, {2, 8, 8}};
  expect_round_trip({model.block(1, 0), model.block(1, 1), model.block(1, 2, 77)});
}

TEST_F(AssemblyTest, AnOrdinaryStateOfEqualLayersComesBack) {
  expect_round_trip({model.block(1, 0), model.block(1, 1, 77)});
}

TEST_F(AssemblyTest, LayersThatKeepDifferentPositionsComeBack) {
  NewBlock block = model.block(1, 0, 4);
  block.pieces.clear();
  std::mt19937 random(1);
  for (std::uint16_t layer = 0; layer < 3; ++layer) {
    std::vector<Position> positions = {0, 3};
    if (layer == 1) positions = {0, 1, 3};
    const std::size_t rows = positions.size() * 2;
    block.pieces.push_back({layer, 0, 2, positions, model.tensor(rows * 16, random),
                            model.tensor(rows * 16, random)});
  }
  expect_round_trip({block});
}

TEST_F(AssemblyTest, WhatIsImportedIsConvertedWhereverARangeCutsIt) {
  std::vector<float> numbers = {1, -2, 0.5F, 3, 1.0009765625F, 65504, 0, -0.0F};
  const ByteSpan bytes(reinterpret_cast<const std::uint8_t*>(numbers.data()), 32);
  const container::TensorView tensor{DType::kF32, {1, 2, 4}, bytes};
  const auto view = imported_layer({tensor, tensor}, {0, 1}, DType::kF16);
  Bytes whole(view->size());
  ASSERT_TRUE(view->read(0, whole));
  const auto header = container::parse_safetensors_header(whole, whole.size());
  ASSERT_TRUE(header);
  const ByteSpan key = ByteSpan(whole).subspan(header->data_offset, 16);
  const Bytes halves = {0x00, 0x3c, 0x00, 0xc0, 0x00, 0x38, 0x00, 0x42,
                        0x01, 0x3c, 0xff, 0x7b, 0x00, 0x00, 0x00, 0x80};
  EXPECT_TRUE(std::ranges::equal(key, halves));
  for (std::size_t at = header->data_offset - 3; at < whole.size(); ++at) {
    for (const std::size_t size : {1U, 2U, 5U}) {
      Bytes part(std::min(size, whole.size() - at));
      ASSERT_TRUE(view->read(at, part));
      ASSERT_TRUE(std::equal(part.begin(), part.end(),
                             whole.begin() + static_cast<std::ptrdiff_t>(at)));
    }
  }
  numbers[3] = 65520;
  EXPECT_THAT(view->read(header->data_offset, whole).error().message(), HasSubstr("too large"));
}

TEST_F(AssemblyTest, ARunOfUnknownTokensSaysSoWhereItBegins) {
  const std::vector<TokenId> tokens = {1, -1, -1, 2, -1};
  const auto bytes_of = [](TokenId token) { return token == 1 ? "one" : "two"; };
  const std::string note = "[tokens imported without ids: their text is not known]";
  EXPECT_EQ(spelled(tokens, 0, 5, bytes_of), "one" + note + "two" + note);
  EXPECT_EQ(spelled(tokens, 2, 2, bytes_of), "two");
}

TEST_F(AssemblyTest, AConvolutionsLayerComesBack) {
  model.layers = {{.kv_heads = 1, .key_width = 16, .kind = LayerKind::kConvolution, .kept = 3},
                  {2, 8, 8}};
  expect_round_trip({model.block(1, 0), model.block(1, 1), model.block(1, 2, 2)});
}

TEST_F(AssemblyTest, HeadsThatHoldDifferentPositionsComeBack) {
  NewBlock block = model.block(1, 0, 4);
  block.pieces.clear();
  std::mt19937 random(1);
  for (std::uint16_t layer = 0; layer < 3; ++layer) {
    for (std::uint16_t head = 0; head < 2; ++head) {
      const Position last = head == 0 ? 2 : 3;
      std::vector<Position> positions = {0, last};
      if (layer == 1 && head == 1) positions = {3};  // ragged
      const std::size_t rows = positions.size();
      block.pieces.push_back({layer, head, 1, positions, model.tensor(rows * 16, random),
                              model.tensor(rows * 16, random)});
    }
  }
  expect_round_trip({block});
}

TEST_F(AssemblyTest, WhatAPrunedStateSaysOfItselfComesBackByteForByte) {
  VersionRecord version = model.version({});
  version.extents.assign(version.layers.size(), {.lengths = {}});
  for (std::size_t i = 0; i < version.layers.size(); ++i)
    version.extents[i].lengths.assign(version.layers[i].kv_heads, 1);
  version.n_tokens = 1;
  version.next_pos = 1;
  version.origin = Origin::kPruned;
  version.origin_detail =
      R"({"method":"knorm","parameters":"keep=0.5","parent":"00","before":{"kind":"edited"}})";
  const std::string json = json_of(*store, version);
  const auto document = parse_state_json(json);
  ASSERT_TRUE(document) << document.error().message();
  EXPECT_EQ(document->version.origin_detail, version.origin_detail);
  EXPECT_EQ(json_of(*store, document->version).substr(0, json.find("\"root\"")),
            json.substr(0, json.find("\"root\"")));
}

TEST_F(AssemblyTest, AByteThatDiffersGivesAnotherRoot) {
  const VersionRecord version = version_of_blocks({model.block(1, 0, 30)});
  StateFiles files = files_of(version);
  const std::uint64_t size = files.layers[1]->size();
  files.layers[1] = std::make_unique<Damaged>(std::move(files.layers[1]), size - 600, size);
  const auto again = assembled(json_of(*store, version), files);
  ASSERT_TRUE(again) << again.error().message();
  EXPECT_NE(again->root, version.root);
}

TEST_F(AssemblyTest, AFileThatIsCutIsNamed) {
  const VersionRecord version = version_of_blocks({model.block(1, 0, 30)});
  for (const std::uint64_t size : {0U, 7U, 8U, 100U, 3000U}) {
    StateFiles files = files_of(version);
    files.layers[1] = std::make_unique<Damaged>(std::move(files.layers[1]), ~0ULL, size);
    const auto again = assembled(json_of(*store, version), files);
    ASSERT_FALSE(again) << size;
    EXPECT_THAT(again.error().message(), HasSubstr("kv/layer-001.safetensors"));
  }
  StateFiles files = files_of(version);
  files.tokens = std::make_unique<Damaged>(std::move(files.tokens), ~0ULL, 200);
  EXPECT_THAT(assembled(json_of(*store, version), files).error().message(),
              HasSubstr("tokens.npy"));
}

// Every byte of a layer's header, and of state.json, may be another: an error or another state.
TEST_F(AssemblyTest, FlippedBytesNeverCrashTheReader) {
  const VersionRecord version = version_of_blocks({model.block(1, 0, 10)});
  const std::string json = json_of(*store, version);
  for (std::size_t at = 0; at < json.size(); at += 3) {
    for (const char c : {'\0', '"', '9', '{', '-'}) {
      std::string damaged = json;
      damaged[at] = c;
      (void)assembled(damaged, files_of(version));
    }
  }
  for (std::uint64_t at = 0; at < 400; at += 5) {
    StateFiles files = files_of(version);
    files.layers[0] = std::make_unique<Damaged>(std::move(files.layers[0]), at, ~0ULL);
    (void)assembled(json, files);
  }
  expect_sound();
}

TEST_F(AssemblyTest, WithoutARootAStateIsEdited) {
  const VersionRecord version = version_of_blocks({model.block(1, 0, 30)});
  std::string json = json_of(*store, version);
  const auto root = json.find(",\n  \"root\"");
  json = json.substr(0, root) + "\n}\n";
  const auto document = parse_state_json(json);
  ASSERT_TRUE(document) << document.error().message();
  EXPECT_FALSE(document->root);
  EXPECT_EQ(document->version.origin, Origin::kEdited);
}

}  // namespace
}  // namespace kvfs::store
