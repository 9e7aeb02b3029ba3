// The store as a whole: what is deduplicated, what survives, what is refused.
#include "engine/store/store.h"

#include <sys/resource.h>

#include <csignal>
#include <fstream>
#include <future>
#include <latch>
#include <thread>

#include "engine/store/environment.h"
#include "tests/engine/store/fixture.h"

namespace kvfs::store {
namespace {

TEST_F(StoreTest, WhatWasAddedIsReadBackBitForBit) {
  const NewBlock block = model.block(1, 0, 200);
  const BlockId id = add(block);
  const BlockRecord record = *store->block(id);
  EXPECT_EQ(record.tokens, block.tokens);
  EXPECT_EQ(record.text, block.text);
  ASSERT_EQ(record.segments.size(), block.pieces.size());
  for (std::size_t i = 0; i < block.pieces.size(); ++i) {
    const auto piece = store->read_segment(record.segments[i]);
    ASSERT_TRUE(piece) << piece.error().message();
    EXPECT_EQ(piece->positions, block.pieces[i].positions);
    EXPECT_EQ(piece->key, block.pieces[i].key);
    EXPECT_EQ(piece->value, block.pieces[i].value);
  }
}

TEST_F(StoreTest, ASegmentAsItIsKeptDecodesToWhatWasAdded) {
  model.layers = {{8, 128, 64}};  // four chunks of keys, two of values
  const NewBlock block = model.block(1, 0);
  const Segment segment = store->block(add(block))->segments.front();
  chunk::StoredPiece piece{.bytes = Bytes(100)};  // of use before
  for (int i = 0; i < 2; ++i) {
    auto read = store->read_stored_segment(segment, std::move(piece));
    ASSERT_TRUE(read) << read.error().message();
    piece = *std::move(read);
  }
  EXPECT_EQ(piece.positions, block.pieces[0].positions);
  EXPECT_EQ(piece.head_count, 8);
  const auto decoded = [&](const std::vector<chunk::StoredChunk>& chunks) {
    Bytes out;
    for (const chunk::StoredChunk& chunk : chunks) {
      Bytes some(chunk.shape.byte_size());
      EXPECT_TRUE(chunk::decode(chunk.codec, chunk.shape, piece.encoded(chunk), some));
      out.insert(out.end(), some.begin(), some.end());
    }
    return out;
  };
  EXPECT_EQ(piece.keys.size(), 4U);
  EXPECT_EQ(decoded(piece.keys), block.pieces[0].key);
  EXPECT_EQ(decoded(piece.values), block.pieces[0].value);
}

TEST_F(StoreTest, TenStatesWithTheSameBlocksHoldTheirChunksOnce) {
  add_state("first", 1, 3);
  const StoreStatistics once = store->statistics();
  EXPECT_EQ(once.chunks, 3u * 3 * 2);
  for (int i = 0; i < 9; ++i) add_state("copy" + std::to_string(i), 1, 3);
  const StoreStatistics all = store->statistics();
  EXPECT_EQ(all.chunks, once.chunks);
  EXPECT_EQ(all.blocks, once.blocks);
  EXPECT_EQ(all.bytes_stored, once.bytes_stored);
  EXPECT_EQ(all.bytes_unique, once.bytes_unique);
  EXPECT_EQ(all.bytes_logical, 10 * once.bytes_logical);
  EXPECT_EQ(once.bytes_logical, once.bytes_unique);
  EXPECT_LT(once.bytes_stored, once.bytes_unique);
  expect_sound();
}

TEST_F(StoreTest, AForkAddsNoChunkNoBlockNoVersion) {
  const StateId source = add_state("source", 1, 2);
  const StoreStatistics before = store->statistics();
  const StateId child = fork(source, "child");
  const StoreStatistics after = store->statistics();
  EXPECT_EQ(after.chunks, before.chunks);
  EXPECT_EQ(after.blocks, before.blocks);
  EXPECT_EQ(after.versions, before.versions);
  EXPECT_EQ(version_of(child).root, version_of(source).root);
  EXPECT_EQ(version_of(child).references, 2u);
}

TEST_F(StoreTest, LargePiecesAreCutByHeadsIntoEqualChunks) {
  model.layers = {{8, 128, 64}};  // keys 524,288 bytes, values 262,144
  const BlockRecord block = *store->block(add(model.block(1, 0)));
  ASSERT_EQ(block.segments.size(), 1u);
  const Segment& segment = block.segments.front();
  EXPECT_EQ(segment.key_chunks.size(), 4u);
  EXPECT_EQ(segment.key_shape.heads, 2);
  EXPECT_EQ(segment.key_shape.byte_size(), 131'072u);
  EXPECT_EQ(segment.value_chunks.size(), 2u);
  EXPECT_EQ(store->read_segment(segment)->key, model.block(1, 0).pieces[0].key);
}

TEST_F(StoreTest, ABlockLargerThanATransactionIsAddedInParts) {
  model.layers = std::vector<LayerShape>(48, {8, 256, 256});  // 96 MiB raw
  const NewBlock block = model.block(1, 0);
  const auto id = store->add_block(block, DType::kBF16, chunk::CodecId::kRaw);
  ASSERT_TRUE(id) << id.error().message();
  EXPECT_EQ(store->statistics().bytes_stored, std::uint64_t{96} << 20);
  EXPECT_EQ(store->read_segment(store->block(id->id())->segments[47])->value,
            block.pieces[47].value);
}

TEST_F(StoreTest, UncommittedWritesAreNeverSeen) {
  StateId id;
  must([&](WriteTransaction& t) -> Status {
    KVFS_ASSIGN(id, t.create_state({.name = "new"}));
    EXPECT_TRUE(t.state(id));
    EXPECT_EQ(store->state(id).error().code, ErrorCode::kNotFound);
    EXPECT_EQ(store->lookup({}, "new").error().code, ErrorCode::kNotFound);
    EXPECT_EQ(store->statistics().states, 0u);
    return {};
  });
  EXPECT_EQ(store->lookup({}, "new")->state, id);
  EXPECT_EQ(store->statistics().states, 1u);
}

TEST_F(StoreTest, AFunctionThatFailsLeavesThoseThatShareItsCommit) {
  std::latch go(1);
  store->write_async(
      [&](WriteTransaction&) -> Status {
        go.wait();
        return {};
      },
      [](Status) {});
  std::vector<std::promise<Status>> outcomes(3);
  const auto queue = [&](int i, const char* name, bool ends_well) {
    store->write_async(
        [=](WriteTransaction& t) -> Status {
          KVFS_TRY(t.create_state({.name = name}));
          if (!ends_well) return fail(ErrorCode::kAgain, "it", "was not to be");
          return {};
        },
        [&outcomes, i](Status status) {
          outcomes[static_cast<std::size_t>(i)].set_value(std::move(status));
        });
  };
  queue(0, "first", true);
  queue(1, "second", false);
  queue(2, "third", true);
  go.count_down();
  EXPECT_TRUE(outcomes[0].get_future().get());
  EXPECT_EQ(outcomes[1].get_future().get().error().code, ErrorCode::kAgain);
  EXPECT_TRUE(outcomes[2].get_future().get());
  EXPECT_TRUE(store->lookup({}, "first"));
  EXPECT_FALSE(store->lookup({}, "second"));
  EXPECT_TRUE(store->lookup({}, "third"));
  EXPECT_EQ(store->statistics().states, 2u);
  expect_sound();
}

TEST_F(StoreTest, AFunctionThatThrowsFailsAlone) {
  const Status status = store->write([](WriteTransaction& t) -> Status {
    KVFS_TRY(t.create_state({.name = "never"}));
    throw std::runtime_error("thrown");
  });
  EXPECT_EQ(status.error().code, ErrorCode::kInternal);
  EXPECT_FALSE(store->lookup({}, "never"));
  must([](WriteTransaction& t) -> Status {
    KVFS_TRY(t.create_state({.name = "next"}));
    return {};
  });
}

TEST_F(StoreTest, AWriteInsideAWriteIsRefusedInsteadOfHanging) {
  must([&](WriteTransaction&) -> Status {
    const Status inner = store->write([](WriteTransaction&) -> Status { return {}; });
    EXPECT_EQ(inner.error().code, ErrorCode::kInternal);
    EXPECT_FALSE(store->add_block(model.block(1, 0), DType::kBF16, chunk::CodecId::kRaw));
    EXPECT_FALSE(store->collect());
    return {};
  });
}

TEST_F(StoreTest, StatisticsAndIdsAreExactAfterReopening) {
  const StateId gone = add_state("gone", 1, 1);
  add_state("stays", 2, 2);
  remove(gone);
  ASSERT_TRUE(store->collect());
  const StoreStatistics before = store->statistics();
  reopen();
  EXPECT_EQ(store->statistics(), before);
  EXPECT_EQ(before.states, 1u);
  EXPECT_EQ(before.blocks, 2u);
  const StateId next = add_state("next", 3, 1);
  EXPECT_GT(next, gone);
  expect_sound();
}

TEST_F(StoreTest, StatesAndFilesShareOneCounterOfInodes) {
  std::vector<std::uint64_t> inodes;
  must([&](WriteTransaction& t) -> Status {
    for (int i = 0; i < 3; ++i) {
      const std::string name = "s" + std::to_string(i);
      KVFS_ASSIGN(const StateId state, t.create_state({.name = name}));
      KVFS_ASSIGN(const FileId file, t.put_file(state, FileArea::kUser, "notes", {}));
      KVFS_ASSIGN(const FileId again, t.put_file(state, FileArea::kUser, "notes", {.mode = 0640}));
      EXPECT_EQ(file, again);
      inodes.push_back(state.value);
      inodes.push_back(file.value);
    }
    return {};
  });
  for (std::size_t i = 1; i < inodes.size(); ++i) EXPECT_GT(inodes[i], inodes[i - 1]);
}

TEST_F(StoreTest, ASecondDaemonIsRefusedWithTheFirstOnesPid) {
  const auto second = Store::open({.directory = directory.path(), .map_bytes = 1u << 30});
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::kBusy);
  EXPECT_NE(second.error().message().find(std::to_string(getpid())), std::string::npos);
  EXPECT_FALSE(second.error().way_out.empty());
}

TEST_F(StoreTest, ANewerFormatIsRefusedAndLeftAlone) {
  add_state("kept", 1, 1);
  store.reset();
  const auto set_format = [&](std::uint32_t format) {
    auto environment = *Environment::open(directory.path(), 1u << 30);
    Txn txn = *environment->begin_write();
    ByteWriter out;
    out.number(format);
    ASSERT_TRUE(txn.put(Table::kMeta, as_bytes("format"), out.bytes()));
    ASSERT_TRUE(txn.commit());
  };
  set_format(2);
  const auto opened = Store::open({.directory = directory.path(), .map_bytes = 1u << 30});
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, ErrorCode::kUnsupported);
  EXPECT_FALSE(opened.error().way_out.empty());
  set_format(1);
  reopen();
  EXPECT_TRUE(store->lookup({}, "kept"));
}

TEST_F(StoreTest, AFullStoreSaysSoAndKeepsWhatItHad) {
  reopen(std::uint64_t{4} << 20);
  model.layers = std::vector<LayerShape>(8, {2, 64, 64});
  std::vector<std::pair<StateId, ContentDigest>> states;
  std::optional<Error> error;
  for (unsigned i = 0; i < 100 && !error; ++i) {
    const auto block = store->add_block(model.block(i, 0), DType::kBF16, chunk::CodecId::kZh);
    if (!block) {
      error = block.error();
      break;
    }
    StateId id;
    const Status status = store->write([&](WriteTransaction& t) -> Status {
      KVFS_ASSIGN(const VersionId version, t.add_version(model.version({block->id()})));
      KVFS_ASSIGN(id, t.create_state({.name = "s" + std::to_string(i), .version = version}));
      return {};
    });
    if (!status) error = status.error();
    if (status) states.emplace_back(id, version_of(id).root);
  }
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, ErrorCode::kNoSpace) << error->message();
  ASSERT_GE(states.size(), 3u);
  for (const auto& [id, root] : states) EXPECT_EQ(version_of(id).root, root);
  expect_sound();

  remove(states.back().first);
  ASSERT_TRUE(store->collect());
  add_state("room again", 1000, 1);
  expect_sound();
}

TEST_F(StoreTest, AWriteThatTheDiskCutsShortIsNeverAcknowledged) {
  model.layers = std::vector<LayerShape>(8, {2, 64, 64});
  const StateId before = add_state("before", 1, 1);
  const ContentDigest root = version_of(before).root;
  const auto file = static_cast<rlim_t>(std::filesystem::file_size(directory.path() / "data.mdb"));
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit limit{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &limit), 0);
  const rlimit tight{.rlim_cur = file + 100'000, .rlim_max = limit.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &tight), 0);
  const auto refused = store->add_block(model.block(2, 0), DType::kBF16, chunk::CodecId::kZh);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kNoSpace) << refused.error().message();
  EXPECT_EQ(store->statistics().blocks, 1u);
  expect_sound();
  reopen();
  EXPECT_EQ(version_of(before).root, root);
  add_state("after", 2, 1);
  expect_sound();
}

TEST_F(StoreTest, OpensWithASmallerMapWhereAddressSpaceIsShort) {
  add_state("kept", 1, 1);
  store.reset();
  std::uint64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  rlimit limit{};
  ASSERT_EQ(getrlimit(RLIMIT_AS, &limit), 0);
  const rlimit tight{
      .rlim_cur = pages * static_cast<std::uint64_t>(getpagesize()) + (std::uint64_t{8} << 30),
      .rlim_max = limit.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_AS, &tight), 0);
  reopen(std::uint64_t{4} << 40);
  ASSERT_EQ(setrlimit(RLIMIT_AS, &limit), 0);
  ASSERT_TRUE(store);
  EXPECT_TRUE(store->lookup({}, "kept"));
  add_state("more", 2, 1);
}

TEST_F(StoreTest, BlocksThatDoNotFitAreRefused) {
  const auto refused = [&](NewBlock block) {
    const auto id = store->add_block(block, DType::kBF16, chunk::CodecId::kZh);
    return !id && id.error().code == ErrorCode::kInvalid;
  };
  const NewBlock good = model.block(1, 1);
  NewBlock block = good;
  block.pieces[0].key.pop_back();
  EXPECT_TRUE(refused(block));
  block = good;
  block.pieces[0].positions[3] = 3;  // of block 0
  EXPECT_TRUE(refused(block));
  block = good;
  std::swap(block.pieces[0], block.pieces[1]);
  EXPECT_TRUE(refused(block));
  block = good;
  block.tokens.front().position = 5;
  EXPECT_TRUE(refused(block));
  EXPECT_FALSE(refused(good));
  EXPECT_EQ(store->statistics().blocks, 1u);
}

TEST_F(StoreTest, ManyThreadsAddTheSameBlocksAndShareThem) {
  std::vector<std::vector<BlockId>> ids(4);
  {
    std::vector<std::jthread> threads;
    for (auto& mine : ids) {
      threads.emplace_back([&] {
        for (int i = 0; i < 6; ++i) mine.push_back(add(model.block(1, i)));
      });
    }
  }
  for (const auto& mine : ids) EXPECT_EQ(mine, ids.front());
  EXPECT_EQ(store->statistics().blocks, 6u);
  EXPECT_EQ(store->statistics().chunks, 6u * 3 * 2);
  expect_sound();
}

}  // namespace
}  // namespace kvfs::store
