// The chunk table: hits confirmed by bytes, damage named, garbage swept but for what was touched.
#include "engine/store/chunks.h"

#include "engine/store/digests.h"
#include "engine/store/keys.h"
#include "engine/store/layouts.h"
#include "tests/engine/store/fixture.h"

namespace kvfs::store {
namespace {

constexpr chunk::ShapeClass kShape{DType::kBF16, 2, 16, 8};

Bytes some_bytes(unsigned seed) {
  std::mt19937 random(seed);
  return TestModel::tensor(kShape.byte_size() / 2, random);
}

// Every content collides under the first two seeds.
ChunkId colliding_hash(const chunk::ShapeClass& shape, ByteSpan decoded, std::uint64_t seed) {
  if (seed >= 2) return chunk_id(shape, decoded, seed);
  ChunkId id;
  id.bytes.fill(static_cast<std::uint8_t>(seed));
  return id;
}

ChunkId always_the_same(const chunk::ShapeClass&, ByteSpan, std::uint64_t) { return {}; }

class ChunkTableTest : public ::testing::Test {
 protected:
  void SetUp() override {
    environment = *Environment::open(directory.path(), 1u << 26);
    in_transaction([](Txn& txn) { return save_counters(txn, {}); });
  }
  void in_transaction(const std::function<Status(Txn&)>& body) {
    Txn txn = *environment->begin_write();
    const Status status = body(txn);
    ASSERT_TRUE(status) << status.error().message();
    ASSERT_TRUE(txn.commit());
  }
  Result<ChunkId> put(ChunkTable& table, const Bytes& bytes,
                      const chunk::ShapeClass& shape = kShape,
                      chunk::CodecId codec = chunk::CodecId::kZh) {
    auto prepared = table.prepare(shape, bytes, codec);
    EXPECT_TRUE(prepared);
    return put(table, *prepared);
  }
  Result<ChunkId> put(ChunkTable& table, PreparedChunk& prepared) {
    Txn txn = *environment->begin_write();
    Counters counters = *load_counters(txn);
    KVFS_ASSIGN(const ChunkId id, table.put(txn, counters, prepared));
    KVFS_TRY(save_counters(txn, counters));
    KVFS_TRY(txn.commit());
    return id;
  }
  Result<Bytes> read(ChunkTable& table, const ChunkId& id) {
    Bytes out(kShape.byte_size());
    const Txn txn = *environment->begin_read();
    KVFS_TRY(table.read(txn, id, kShape, out));
    return out;
  }
  StoreStatistics statistics() {
    const Txn txn = *environment->begin_read();
    return load_counters(txn)->statistics;
  }
  // Changes one byte of the stored value, `from_end` bytes before its end.
  void damage(const ChunkId& id, std::size_t from_end) {
    in_transaction([&](Txn& txn) -> Status {
      KVFS_ASSIGN(const auto value, txn.get(Table::kChunks, id.bytes));
      Bytes changed(value->begin(), value->end());
      changed[changed.size() - from_end] ^= 1;
      return txn.put(Table::kChunks, id.bytes, changed);
    });
  }

  TempDirectory directory;
  std::unique_ptr<Environment> environment;
};

TEST_F(ChunkTableTest, EqualChunksAreKeptOnce) {
  ChunkTable table(*environment);
  const ChunkId first = *put(table, some_bytes(1));
  EXPECT_EQ(*put(table, some_bytes(1)), first);
  EXPECT_EQ(statistics().chunks, 1u);
  EXPECT_NE(*put(table, some_bytes(2)), first);
  EXPECT_EQ(statistics().chunks, 2u);
  EXPECT_EQ(*read(table, first), some_bytes(1));
}

TEST_F(ChunkTableTest, EqualBytesOfUnequalShapesStayApart) {
  ChunkTable table(*environment);
  const chunk::ShapeClass other{DType::kBF16, 1, 32, 8};
  EXPECT_NE(*put(table, some_bytes(1)), *put(table, some_bytes(1), other));
}

TEST_F(ChunkTableTest, ACollisionNeverJoinsTwoChunks) {
  ChunkTable table(*environment, colliding_hash);
  std::vector<ChunkId> ids;
  for (unsigned seed = 0; seed < 4; ++seed) ids.push_back(*put(table, some_bytes(seed)));
  for (unsigned seed = 0; seed < 4; ++seed) {
    EXPECT_EQ(*read(table, ids[seed]), some_bytes(seed));
    EXPECT_EQ(*put(table, some_bytes(seed)), ids[seed]) << "and each is found again";
  }
  EXPECT_EQ(statistics().chunks, 4u);
}

TEST_F(ChunkTableTest, ChunksPreparedTogetherThatCollideStayApart) {
  ChunkTable table(*environment, colliding_hash);
  const Bytes a = some_bytes(1), b = some_bytes(2);
  PreparedChunk first = *table.prepare(kShape, a, chunk::CodecId::kZh);
  PreparedChunk second = *table.prepare(kShape, b, chunk::CodecId::kZh);
  const ChunkId first_id = *put(table, first), second_id = *put(table, second);
  EXPECT_EQ(*read(table, first_id), a);
  EXPECT_EQ(*read(table, second_id), b);
}

TEST_F(ChunkTableTest, AHashThatAlwaysCollidesIsAnErrorNotALoss) {
  ChunkTable table(*environment, always_the_same);
  ASSERT_TRUE(put(table, some_bytes(1)));
  EXPECT_EQ(put(table, some_bytes(2)).error().code, ErrorCode::kInternal);
}

TEST_F(ChunkTableTest, DamagedBytesAreCorruptAndTheChunkIsNamed) {
  ChunkTable table(*environment);
  const ChunkId id = *put(table, some_bytes(1), kShape, chunk::CodecId::kRaw);
  for (std::size_t from_end : {std::size_t{1}, std::size_t{100}}) {
    damage(id, from_end);
    const auto bytes = read(table, id);
    ASSERT_FALSE(bytes);
    EXPECT_EQ(bytes.error().code, ErrorCode::kCorrupt);
    EXPECT_NE(bytes.error().message().find(id.hex()), std::string::npos);
    damage(id, from_end);
    EXPECT_TRUE(read(table, id));
  }
}

TEST_F(ChunkTableTest, AGoodCopyHealsADamagedChunk) {
  ChunkTable table(*environment);
  const ChunkId id = *put(table, some_bytes(1));
  const StoreStatistics before = statistics();
  damage(id, 1);
  EXPECT_EQ(*put(table, some_bytes(1)), id);
  EXPECT_EQ(*read(table, id), some_bytes(1));
  EXPECT_EQ(statistics(), before);
}

TEST_F(ChunkTableTest, AReadOfTheWrongShapeIsRefused) {
  ChunkTable table(*environment);
  const ChunkId id = *put(table, some_bytes(1));
  Bytes out(kShape.byte_size());
  const Txn txn = *environment->begin_read();
  EXPECT_FALSE(table.read(txn, id, {DType::kBF16, 1, 32, 8}, out));
  EXPECT_FALSE(table.read(txn, id, kShape, MutableByteSpan(out).first(10)));
}

TEST_F(ChunkTableTest, ASweepSparesWhatWasPutOrHitSinceTheMark) {
  ChunkTable table(*environment);
  const ChunkId old = *put(table, some_bytes(1)), hit = *put(table, some_bytes(2));
  table.begin_mark();
  ASSERT_EQ(*put(table, some_bytes(2)), hit);
  const ChunkId fresh = *put(table, some_bytes(3));
  in_transaction([&](Txn& txn) -> Status {
    Counters counters = *load_counters(txn);
    EXPECT_GT(*table.sweep(txn, counters, std::vector{old, hit, fresh}), 0u);
    return save_counters(txn, counters);
  });
  table.end_mark();
  EXPECT_FALSE(read(table, old));
  EXPECT_TRUE(read(table, hit));
  EXPECT_TRUE(read(table, fresh));
  EXPECT_EQ(statistics().chunks, 2u);
}

TEST_F(ChunkTableTest, AHitThatWasSweptBeforeItsPutIsWrittenAgain) {
  ChunkTable table(*environment);
  const Bytes bytes = some_bytes(1);
  const ChunkId id = *put(table, bytes);
  PreparedChunk prepared = *table.prepare(kShape, bytes, chunk::CodecId::kZh);
  ASSERT_TRUE(prepared.known);
  in_transaction([&](Txn& txn) -> Status {
    Counters counters = *load_counters(txn);
    KVFS_TRY(table.sweep(txn, counters, std::vector{id}));
    return save_counters(txn, counters);
  });
  table.swept();
  EXPECT_EQ(*put(table, prepared), id);
  EXPECT_EQ(*read(table, id), bytes);
}

}  // namespace
}  // namespace kvfs::store
