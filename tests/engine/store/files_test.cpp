// Users' files and snapshots in the store: pieces are kept once and go with their last use.
#include <gmock/gmock.h>

#include "engine/store/views.h"
#include "tests/engine/store/fixture.h"

namespace kvfs::store {
namespace {

class Files : public StoreTest {
 protected:
  FileId make(StateId state, const std::string& name, std::vector<FilePiece> pieces,
              std::uint64_t size) {
    FileId id;
    must([&](WriteTransaction& t) -> Status {
      KVFS_ASSIGN(id, t.create_node({state, name}, {}));
      FileNode node;
      node.size = size;
      return t.write_node(id, {.node = node, .pieces = std::move(pieces)});
    });
    return id;
  }
  std::string read(FileId id) {
    auto view = node_view(*store, id);
    EXPECT_TRUE(view);
    Bytes bytes((*view)->size());
    EXPECT_TRUE((*view)->read(0, bytes));
    return std::string(as_text(bytes));
  }
  static FilePiece piece(std::uint64_t number, char c, std::size_t size = kPieceBytes) {
    return {number, Bytes(size, static_cast<std::uint8_t>(c))};
  }
};

TEST_F(Files, WhatIsNotThereIsZeros) {
  const StateId state = add_state("s", 1, 1);
  const FileId id = make(state, "f", {piece(1, 'x', 3)}, 3 * kPieceBytes);
  std::string expected(3 * kPieceBytes, '\0');
  expected.replace(kPieceBytes, 3, "xxx");
  EXPECT_EQ(read(id), expected);
  EXPECT_EQ(store->node(id)->pieces, 1U);
  EXPECT_EQ(store->next_piece(id, 0)->value(), 1U);
  EXPECT_EQ(*store->next_piece(id, 2), std::nullopt);
  expect_sound();
}

TEST_F(Files, EqualPiecesAreOneAndGoWithTheLast) {
  const StateId state = add_state("s", 1, 1);
  make(state, "a", {piece(0, 'x'), piece(1, 'x')}, 2 * kPieceBytes);
  make(state, "b", {piece(0, 'x')}, kPieceBytes);
  reopen();
  expect_sound();
  for (const std::string name : {"a", "b"}) {
    must([&](WriteTransaction& t) -> Status {
      KVFS_ASSIGN(const FileId id, t.unlink_node({state, name}));
      return t.reap_node(id);
    });
    expect_sound();
  }
  EXPECT_TRUE(store->list(state, "", 9)->empty());
}

TEST_F(Files, AnUnlinkedFileIsReapedAtTheNextStart) {
  const StateId state = add_state("s", 1, 1);
  const FileId id = make(state, "a", {piece(0, 'x')}, kPieceBytes);
  must([&](WriteTransaction& t) -> Status {
    KVFS_TRY(t.unlink_node({state, "a"}));
    return {};
  });
  EXPECT_EQ(read(id).size(), kPieceBytes);
  expect_sound();
  reopen();
  EXPECT_FALSE(store->node(id));
  expect_sound();
}

TEST_F(Files, FilesAreInTheWayOfARemoval) {
  const StateId state = add_state("s", 1, 1);
  make(state, "a", {}, 0);
  EXPECT_EQ(code_of([&](WriteTransaction& t) { return t.remove_state(state); }),
            ErrorCode::kNotEmpty);
  EXPECT_EQ(store->removable(state).error().code, ErrorCode::kNotEmpty);
}

TEST_F(Files, ASourceShowsWhereNoPieceIs) {
  const StateId state = add_state("s", 1, 2);
  const VersionId version = store->state(state)->version;
  const auto view = part_view(*store, *store->version(version), layer_part(0));
  const std::uint64_t size = (*view)->size();
  Bytes whole(size);
  ASSERT_TRUE((*view)->read(0, whole));
  FileId id;
  must([&](WriteTransaction& t) -> Status {
    KVFS_ASSIGN(id, t.create_node({state, "kv/layer-000.safetensors", true}, {}));
    return t.set_source(id, version, layer_part(0), size);
  });
  EXPECT_EQ(read(id), as_text(whole));
  EXPECT_EQ(store->staged(state)->size(), 1U);
  FileNode node = *store->node(id);
  node.size = node.source_bytes = 10;
  must([&](WriteTransaction& t) { return t.write_node(id, {.node = node, .keep_below = 1}); });
  EXPECT_EQ(read(id), as_text(whole).substr(0, 10));
  expect_sound();
  remove(state);  // what is staged goes along
  EXPECT_FALSE(store->node(id));
  expect_sound();
}

TEST_F(Files, ASnapshotKeepsItsVersionAndItsFiles) {
  const StateId state = add_state("s", 1, 2);
  make(state, "note", {piece(0, 'n', 4)}, 4);
  StateId snapshot;
  must([&](WriteTransaction& t) -> Status {
    KVFS_ASSIGN(snapshot, t.create_snapshot(state, "v1", 5));
    return t.set_version(state, {});
  });
  ASSERT_TRUE(store->collect());
  EXPECT_TRUE(store->state(snapshot)->snapshot);
  EXPECT_EQ(store->version(store->state(snapshot)->version)->blocks.size(), 2U);
  EXPECT_EQ(*store->snapshot(state, "v1"), snapshot);
  EXPECT_EQ(read(store->lookup(snapshot, "note")->file), "nnnn");
  EXPECT_EQ(code_of([&](WriteTransaction& t) { return t.remove_state(state); }),
            ErrorCode::kNotEmpty);
  expect_sound();
  reopen();
  remove(snapshot);
  expect_sound();
  EXPECT_TRUE(store->snapshots(state)->empty());
  ASSERT_TRUE(store->collect());
  EXPECT_EQ(store->statistics().blocks, 0U);
}

TEST_F(Files, APinnedStateIsNotRemoved) {
  const StateId state = add_state("s", 1, 1);
  StateRecord record = *store->state(state);
  record.pinned = true;
  must([&](WriteTransaction& t) { return t.update_state(state, record); });
  EXPECT_EQ(code_of([&](WriteTransaction& t) { return t.remove_state(state); }),
            ErrorCode::kPermission);
}

}  // namespace
}  // namespace kvfs::store
