// The verifier finds every kind of damage that is planted, and none in a sound store.
#include "engine/store/environment.h"
#include "engine/store/keys.h"
#include "engine/store/layouts.h"
#include "tests/engine/store/fixture.h"

namespace kvfs::store {
namespace {

class VerifierTest : public StoreTest {
 protected:
  void SetUp() override {
    StoreTest::SetUp();
    const StateId a = add_state("a", 1, 2);
    fork(a, "child");
    add_state("b", 2, 1);
  }
  // Changes the first row of a table behind the store's back, then verifies.
  std::vector<std::string> problems_after(
      Table table, const std::function<Status(Txn&, const Bytes& key, Bytes value)>& change) {
    store.reset();
    {
      auto environment = *Environment::open(directory.path(), 1u << 30);
      Txn txn = *environment->begin_write();
      Bytes key, value;
      {
        Cursor cursor = *Cursor::open(txn, table);
        EXPECT_TRUE(*cursor.seek({}));
        key.assign(cursor.key().begin(), cursor.key().end());
        value.assign(cursor.value().begin(), cursor.value().end());
      }
      EXPECT_TRUE(change(txn, key, value));
      EXPECT_TRUE(txn.commit());
    }
    reopen();
    const auto report = store->verify();
    EXPECT_TRUE(report) << report.error().message();
    return report ? report->problems : std::vector<std::string>();
  }
  static std::function<Status(Txn&, const Bytes&, Bytes)> erase(Table table) {
    return [=](Txn& txn, const Bytes& key, Bytes) -> Status {
      KVFS_TRY(txn.erase(table, key));
      return {};
    };
  }
  static bool mentions(const std::vector<std::string>& problems, std::string_view what) {
    for (const std::string& problem : problems) {
      if (problem.find(what) != problem.npos) return true;
    }
    return false;
  }
};

TEST_F(VerifierTest, ASoundStoreHasNoProblemsAndIsCounted) {
  const VerifyReport report = *store->verify();
  EXPECT_TRUE(report.problems.empty()) << report.problems.front();
  EXPECT_EQ(report.states, 3u);
  EXPECT_EQ(report.versions, 2u);
  EXPECT_EQ(report.blocks, 3u);
  EXPECT_EQ(report.chunks, 3u * 3 * 2);
}

TEST_F(VerifierTest, FindsAFlippedBitInAChunkAndNamesIt) {
  std::string name;
  const auto problems =
      problems_after(Table::kChunks, [&](Txn& txn, const Bytes& key, Bytes value) {
        ChunkId id;
        std::copy(key.begin(), key.end(), id.bytes.begin());
        name = id.hex();
        value.back() ^= 4;
        return txn.put(Table::kChunks, key, value);
      });
  EXPECT_TRUE(mentions(problems, name));
}

TEST_F(VerifierTest, FindsAChunkUnderTheWrongName) {
  const auto problems = problems_after(Table::kChunks, [&](Txn& txn, Bytes key, Bytes value) {
    key[0] ^= 1;
    return txn.put(Table::kChunks, key, value);
  });
  EXPECT_TRUE(mentions(problems, "another hash"));
}

TEST_F(VerifierTest, FindsAMissingChunk) {
  EXPECT_TRUE(mentions(problems_after(Table::kChunks, erase(Table::kChunks)), "is missing"));
}

TEST_F(VerifierTest, FindsAMissingBlock) {
  EXPECT_TRUE(mentions(problems_after(Table::kBlocks, erase(Table::kBlocks)), "block "));
}

TEST_F(VerifierTest, FindsAChangedBlockRecord) {
  const auto problems = problems_after(Table::kBlocks, [](Txn& txn, const Bytes& key, Bytes value) {
    value[value.size() - 1] ^= 1;  // in the last segment's digest
    return txn.put(Table::kBlocks, key, value);
  });
  EXPECT_TRUE(mentions(problems, "does not match its hash"));
}

TEST_F(VerifierTest, FindsAWrongReferenceCount) {
  const auto problems =
      problems_after(Table::kBlockReferences, [](Txn& txn, const Bytes& key, Bytes value) {
        ++value[0];
        return txn.put(Table::kBlockReferences, key, value);
      });
  EXPECT_TRUE(mentions(problems, "references"));
}

TEST_F(VerifierTest, FindsAVersionThatIsHeldMoreOftenThanItCounts) {
  const auto problems =
      problems_after(Table::kVersions, [](Txn& txn, const Bytes& key, Bytes value) {
        --value[1];
        return txn.put(Table::kVersions, key, value);
      });
  EXPECT_TRUE(mentions(problems, "is held"));
}

TEST_F(VerifierTest, FindsARootThatIsNotThatOfTheBlocks) {
  const auto problems =
      problems_after(Table::kVersions, [](Txn& txn, const Bytes& key, Bytes value) {
        value.back() ^= 1;
        return txn.put(Table::kVersions, key, value);
      });
  EXPECT_TRUE(mentions(problems, "root"));
}

TEST_F(VerifierTest, FindsAMissingVersion) {
  EXPECT_TRUE(mentions(problems_after(Table::kVersions, erase(Table::kVersions)), "is missing"));
}

TEST_F(VerifierTest, FindsAMissingState) {
  EXPECT_TRUE(mentions(problems_after(Table::kStates, erase(Table::kStates)), "is missing"));
}

TEST_F(VerifierTest, FindsAMissingName) {
  EXPECT_TRUE(mentions(problems_after(Table::kNames, erase(Table::kNames)), "does not lead to it"));
}

TEST_F(VerifierTest, FindsCountersThatAreWrong) {
  const auto problems = problems_after(Table::kMeta, [](Txn& txn, const Bytes&, Bytes) -> Status {
    KVFS_ASSIGN(const auto counters, txn.get(Table::kMeta, as_bytes("counters")));
    Bytes changed(counters->begin(), counters->end());
    changed.back() ^= 1;
    return txn.put(Table::kMeta, as_bytes("counters"), changed);
  });
  EXPECT_TRUE(mentions(problems, "counters"));
}

}  // namespace
}  // namespace kvfs::store
