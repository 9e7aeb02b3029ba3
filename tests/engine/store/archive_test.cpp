// Archives: out of one store and into another, whole; what is damaged or lies, refused.
#include "engine/store/archive.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "engine/store/archive_front.h"
#include "engine/store/assembly.h"
#include "tests/engine/store/fixture.h"

namespace kvfs::store {
namespace {

using ::testing::HasSubstr;

Archive::Speller no_speller(const VersionRecord&) { return {}; }

class ArchiveTest : public StoreTest {
 protected:
  void SetUp() override {
    StoreTest::SetUp();
    auto opened = Store::open({.directory = other_directory_.path(), .map_bytes = 1ULL << 30});
    ASSERT_TRUE(opened) << opened.error().message();
    other_ = *std::move(opened);
  }

  StateId state_of(const std::string& name, const std::vector<NewBlock>& blocks) {
    VersionRecord record = model.version({});
    record.codec = codec;
    record.next_pos = 0;
    for (const NewBlock& block : blocks) {
      record.blocks.push_back(add(block));
      record.next_pos += static_cast<Position>(block.tokens.size());
    }
    StateId id;
    must([&](WriteTransaction& t) -> Status {
      KVFS_ASSIGN(const VersionId version, t.add_version(record));
      KVFS_ASSIGN(
          id, t.create_state({.name = name, .version = version, .params = {{"temperature", "0"}}}));
      return {};
    });
    return id;
  }

  // The whole, of which any range is a range.
  static Bytes whole_of(Result<std::unique_ptr<FileView>> view) {
    EXPECT_TRUE(view) << view.error().message();
    if (!view) return {};
    Bytes whole((*view)->size());
    const auto got = (*view)->read(0, whole);
    EXPECT_TRUE(got && *got == whole.size());
    for (std::size_t at = 0; at < whole.size(); at += 1 + whole.size() / 61) {
      Bytes part(333);
      const auto n = (*view)->read(at, part);
      EXPECT_TRUE(n && std::equal(part.begin(), part.begin() + static_cast<std::ptrdiff_t>(*n),
                                  whole.begin() + static_cast<std::ptrdiff_t>(at)));
    }
    return whole;
  }

  // Of the first state, in the other store; the root is compared as an import does.
  Result<VersionRecord> imported(ByteSpan file) {
    KVFS_ASSIGN(const Archive archive, Archive::read(file));
    KVFS_ASSIGN(const Archive::Stored stored, archive.store_blocks(*other_, no_speller));
    const auto first = archive.table().states.front().version;
    if (!first) return fail(ErrorCode::kInvalid, "archive", "its state is empty");
    VersionRecord made;
    const Status written = other_->write([&](WriteTransaction& t) -> Status {
      KVFS_ASSIGN(const VersionId id, t.add_version(stored.versions[*first]));
      KVFS_TRY(t.hold_version(id));
      KVFS_ASSIGN(made, t.version(id));
      if (made.root == archive.table().versions[*first].root) return {};
      return fail(ErrorCode::kInvalid, "archive", "another root");
    });
    KVFS_TRY(written);
    return made;
  }

  void expect_round_trip(const std::vector<NewBlock>& blocks) {
    const VersionRecord was = version_of(state_of("s", blocks));
    const Bytes file = whole_of(archive_view(*store, was));
    const auto now = imported(file);
    ASSERT_TRUE(now) << now.error().message();
    EXPECT_EQ(now->root, was.root);
    EXPECT_EQ(now->extents, was.extents);
    EXPECT_EQ(now->kernel_class, was.kernel_class);
    for (std::size_t i = 0; i < was.blocks.size(); ++i) {
      const auto a = *store->block(was.blocks[i]);
      const auto b = *other_->block(now->blocks[i]);
      EXPECT_EQ(b.tokens, a.tokens);  // with how each was computed
      EXPECT_EQ(b.text, a.text);
      EXPECT_FALSE(b.key);
      EXPECT_EQ(b.segments.size(), a.segments.size());
    }
    EXPECT_EQ(whole_of(archive_view(*other_, *now)), file);
    const auto report = other_->verify();
    ASSERT_TRUE(report);
    EXPECT_THAT(report->problems, ::testing::IsEmpty());
  }

  TempDirectory other_directory_;
  std::unique_ptr<Store> other_;
};

// Heads of a layer with other positions, other numbers of them, none.
NewBlock ragged(const TestModel& model) {
  NewBlock block = model.block(1, 0, 4);
  block.pieces.clear();
  std::mt19937 random(1);
  const auto add = [&](std::uint16_t layer, std::uint16_t head, std::vector<Position> positions) {
    const std::size_t rows = positions.size();
    block.pieces.push_back({layer, head, 1, std::move(positions), model.tensor(rows * 16, random),
                            model.tensor(rows * 16, random)});
  };
  add(0, 0, {0, 3});
  add(0, 1, {1, 3});
  add(1, 0, {2});
  add(1, 1, {0, 1, 2});
  add(2, 1, {3});
  return block;
}

// KVFS_WRITE_ARCHIVES=1 writes them anew, for a format of another number.
std::string golden(const std::string& name) {
  std::ifstream in(std::filesystem::path(KVFS_ARCHIVES) / name, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void expect_golden(const std::string& name, ByteSpan file) {
  if (std::getenv("KVFS_WRITE_ARCHIVES") != nullptr) {
    std::ofstream(std::filesystem::path(KVFS_ARCHIVES) / name, std::ios::binary) << as_text(file);
  }
  EXPECT_TRUE(golden(name) == as_text(file)) << name << " is written with other bytes";
}

TEST_F(ArchiveTest, TheBytesAreThoseOfTheFormat) {
  codec = chunk::CodecId::kRaw;  // zh's depend on zstd's version
  expect_golden("ragged.kvfs",
                whole_of(archive_view(*store, version_of(state_of("ragged", {ragged(model)})))));
  model.layers = {{2, 8, 4},
                  {.kv_heads = 1, .key_width = 8, .kind = LayerKind::kConvolution, .kept = 3}};
  const StateId state = state_of("s", {model.block(1, 0, 20)});
  must([&](WriteTransaction& t) -> Status {
    FileNode node{.mode = 0640, .size = 300'000, .modified_ns = 5};
    KVFS_ASSIGN(const FileId file, t.create_node({state, "note"}, node));
    KVFS_TRY(t.write_node(file, {.node = node, .pieces = {{2, Bytes(100, 'n')}}}));
    KVFS_TRY(t.create_snapshot(state, "v1", 7));
    return {};
  });
  expect_golden("whole.kvfs",
                whole_of(archive_view(*store, state, {.files = true, .snapshots = true})));
}

TEST_F(ArchiveTest, AnArchiveOfOldIsThatStateStill) {
  model.layers = {{2, 8, 8}};
  const VersionRecord was = version_of(state_of("s", {model.block(1, 0), model.block(1, 1, 9)}));
  if (std::getenv("KVFS_WRITE_ARCHIVES") != nullptr) {
    expect_golden("zh.kvfs", whole_of(archive_view(*store, was)));
  }
  const std::string file = golden("zh.kvfs");
  const auto now = imported(as_bytes(file));
  ASSERT_TRUE(now) << now.error().message();
  EXPECT_EQ(now->root, was.root);
  EXPECT_EQ(now->extents, was.extents);
}

TEST_F(ArchiveTest, AStateComesBackToTheByte) {
  model.layers = {{3, 16, 24}, {2, 8, 8}};
  expect_round_trip({model.block(1, 0), model.block(1, 1), model.block(1, 2, 77)});
}

TEST_F(ArchiveTest, WhatAChunkWasDecodedFromIsKeptAsItIs) {
  const NewBlock block = model.block(1, 0);
  codec = chunk::CodecId::kRaw;
  add(block);
  codec = chunk::CodecId::kZh;  // which would be smaller
  const VersionRecord was = version_of(state_of("s", {block}));
  const auto now = imported(whole_of(archive_view(*store, was)));
  ASSERT_TRUE(now) << now.error().message();
  EXPECT_EQ(other_->statistics().bytes_stored, store->statistics().bytes_stored);
  const auto ours = store->block(was.blocks[0]), theirs = other_->block(now->blocks[0]);
  ASSERT_TRUE(ours && theirs);
  for (std::size_t i = 0; i < ours->segments.size(); ++i) {
    ASSERT_EQ(ours->segments[i].key_chunks, theirs->segments[i].key_chunks);
    for (const ChunkId& id : ours->segments[i].key_chunks) {
      EXPECT_EQ(*store->stored_chunk(id), *other_->stored_chunk(id));
    }
  }
  EXPECT_THAT(other_->verify()->problems, ::testing::IsEmpty());
}

TEST_F(ArchiveTest, APrunedStateOfRaggedHeadsComesBackToTheByte) {
  expect_round_trip({ragged(model)});
}

TEST_F(ArchiveTest, AConvolutionsLayerComesBackToTheByte) {
  model.layers = {{.kv_heads = 1, .key_width = 16, .kind = LayerKind::kConvolution, .kept = 3},
                  {2, 8, 8}};
  expect_round_trip({model.block(1, 0), model.block(1, 1, 2)});
}

TEST_F(ArchiveTest, FilesParametersAndSnapshotsComeAlongWhereTheyAreAskedFor) {
  const StateId state = state_of("s", {model.block(1, 0), model.block(1, 1, 9)});
  const Bytes note(300'000, 'n');
  must([&](WriteTransaction& t) -> Status {
    FileNode node{.mode = 0640, .size = 1'000'000, .modified_ns = 5};
    KVFS_ASSIGN(const FileId file, t.create_node({state, "note"}, node));
    FileWrite write{.node = node};
    write.pieces.push_back({2, Bytes(note.begin(), note.begin() + kPieceBytes)});
    KVFS_TRY(t.write_node(file, write));
    KVFS_TRY(t.create_snapshot(state, "v1", 7));
    return {};
  });
  const Bytes plain = whole_of(archive_view(*store, state, {}));
  const Bytes full = whole_of(archive_view(*store, state, {.files = true, .snapshots = true}));
  const auto less = Archive::read(plain);
  const auto more = Archive::read(full);
  ASSERT_TRUE(less && more);
  EXPECT_EQ(less->table().states.size(), 1U);
  EXPECT_TRUE(less->table().states[0].files.empty());
  EXPECT_EQ(less->table().states[0].params.at("temperature"), "0");
  ASSERT_EQ(more->table().states.size(), 2U);
  EXPECT_EQ(more->table().states[1].name, "v1");
  EXPECT_EQ(more->table().versions.size(), 1U);  // shared
  ASSERT_EQ(more->table().states[0].files.size(), 1U);
  const ArchiveTable::File& file = more->table().states[0].files[0];
  EXPECT_EQ(file.size, 1'000'000U);
  EXPECT_EQ(file.mode, 0640U);
  ASSERT_EQ(file.pieces.size(), 1U);  // it is sparse
  EXPECT_EQ(file.pieces[0].first, 2U);
  EXPECT_EQ(more->piece(file.pieces[0])->bytes, Bytes(note.begin(), note.begin() + kPieceBytes));
  EXPECT_LT(full.size(), plain.size() + kPieceBytes + 500);  // one piece, though two states have it
}

TEST_F(ArchiveTest, WhatIsCutShortOrHasMoreIsRefused) {
  const Bytes file = whole_of(archive_view(*store, version_of(state_of("s", {ragged(model)}))));
  for (std::size_t size = 0; size < file.size(); size += 1 + size / 40) {
    const auto read = Archive::read(ByteSpan(file).first(size));
    ASSERT_FALSE(read) << size;
    EXPECT_EQ(read.error().code, ErrorCode::kInvalid);
    EXPECT_THAT(read.error().message(), HasSubstr("copy it again"));
  }
  Bytes longer = file;
  longer.push_back(0);
  EXPECT_THAT(Archive::read(longer).error().message(), HasSubstr("1 bytes follow"));
  Bytes newer = file;
  newer[kArchiveMagic.size()] = 2;
  EXPECT_EQ(Archive::read(newer).error().code, ErrorCode::kUnsupported);
}

// With the table's digest made right again, as somebody who means it would.
TEST_F(ArchiveTest, NoByteOfItIsBelieved) {
  const VersionRecord was = version_of(state_of("s", {ragged(model)}));
  const Bytes file = whole_of(archive_view(*store, was));
  const std::size_t front = archive_front({}).size();
  std::uint64_t table = 0;
  std::memcpy(&table, file.data() + kArchiveMagic.size() + 8, sizeof table);
  int refused = 0;
  constexpr std::size_t kTries = 160;
  for (std::size_t i = 0; i < kTries; ++i) {
    Bytes bad = file;
    const std::size_t at = front + (file.size() - front) * i / kTries;
    bad[at] ^= static_cast<std::uint8_t>(i % 2 == 0 ? 0xff : 1);
    const Bytes again = archive_front(ByteSpan(bad).subspan(front, table));
    std::ranges::copy(again, bad.begin());
    const auto now = imported(bad);
    if (!now) {
      ++refused;
      EXPECT_TRUE(now.error().code == ErrorCode::kInvalid ||
                  now.error().code == ErrorCode::kUnsupported)
          << at << ": " << now.error().message();
    } else {  // a name, a time, how a token was computed: never what it knows
      EXPECT_EQ(now->root, was.root) << at;
      EXPECT_EQ(now->n_tokens, was.n_tokens) << at;
    }
  }
  EXPECT_GT(refused, 100);
  EXPECT_THAT(other_->verify()->problems, ::testing::IsEmpty());
}

TEST_F(ArchiveTest, AChunkThatClaimsMoreThanItsBytesHoldTakesNoMemory) {
  NewBlock block = model.block(1, 0, 4);
  const Bytes file = whole_of(archive_view(*store, version_of(state_of("s", {block}))));
  auto archive = Archive::read(file);
  ASSERT_TRUE(archive);
  ArchiveTable table = archive->table();
  table.versions[0].layers[0] = {65535, 65535, 65535};
  table.versions[0].extents[0].lengths.assign(65535, 4);
  Segment& segment = table.blocks[0].segments[0];
  segment.head_count = 65535;
  for (chunk::ShapeClass* shape : {&segment.key_shape, &segment.value_shape}) {
    shape->heads = 65535;
    shape->width = 65535;
  }
  const Bytes lying = encode(table);
  Bytes bad = archive_front(lying);
  bad.insert(bad.end(), lying.begin(), lying.end());
  std::uint64_t data = 0;
  for (const ArchiveTable::Item& item : table.chunks) data += item.size;
  bad.insert(bad.end(), file.end() - static_cast<std::ptrdiff_t>(data), file.end());
  const auto read = imported(bad);
  ASSERT_FALSE(read);
  EXPECT_THAT(read.error().message(), HasSubstr("its bytes are others"));
}

}  // namespace
}  // namespace kvfs::store
