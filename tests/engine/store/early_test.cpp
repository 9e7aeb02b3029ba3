// What is kept soon: seen at once, in order, on disk a moment later.
#include <sys/resource.h>
#include <sys/wait.h>

#include <csignal>
#include <future>
#include <map>
#include <random>

#include "engine/store/writer.h"
#include "tests/engine/store/fixture.h"

namespace kvfs::store {
namespace {

Bytes bytes_of(std::string_view text) { return Bytes(text.begin(), text.end()); }

class Early : public StoreTest {
 protected:
  Status soon(const std::function<Status(WriteTransaction&)>& body) {
    std::promise<Status> outcome;
    store->write_soon(body, [&](Status status) { outcome.set_value(std::move(status)); });
    return outcome.get_future().get();
  }
  Status name_soon(const std::string& name) {
    return soon([&](WriteTransaction& t) -> Status {
      KVFS_TRY(t.create_state({.name = name}));
      return {};
    });
  }
  std::vector<std::string> names() {
    std::vector<std::string> out;
    const auto entries = store->list({}, "", 1000);
    for (const NameEntry& entry : *entries) out.push_back(entry.name);
    return out;
  }
};

TEST_F(Early, WhatIsKeptSoonIsSeenAtOnceAndStaysAcrossAReopen) {
  must(
      [](WriteTransaction& t) -> Status { return t.create_state({.name = "b"}).map([](auto) {}); });
  ASSERT_TRUE(name_soon("c"));
  ASSERT_TRUE(name_soon("a"));
  EXPECT_FALSE(name_soon("a"));  // it sees what was before it
  EXPECT_EQ(names(), (std::vector<std::string>{"a", "b", "c"}));
  const StateId a = store->lookup({}, "a")->state;
  ASSERT_TRUE(soon([&](WriteTransaction& t) { return t.remove_state(a); }));
  EXPECT_EQ(names(), (std::vector<std::string>{"b", "c"}));
  EXPECT_EQ(store->statistics().states, 2U);
  must([&](WriteTransaction& t) -> Status {  // joins the transaction that is open
    KVFS_TRY(t.lookup({}, "c"));
    return t.create_state({.name = "d"}).map([](auto) {});
  });
  reopen();
  EXPECT_EQ(names(), (std::vector<std::string>{"b", "c", "d"}));
  expect_sound();
}

TEST_F(Early, AFailedBodyLeavesNothing) {
  ASSERT_TRUE(name_soon("a"));
  EXPECT_FALSE(soon([](WriteTransaction& t) -> Status {
    KVFS_TRY(t.create_state({.name = "half"}));
    return fail(ErrorCode::kInvalid, "a test", "it gives up");
  }));
  EXPECT_EQ(names(), std::vector<std::string>{"a"});
  reopen();
  EXPECT_EQ(names(), std::vector<std::string>{"a"});
}

// The disk is full for a while: what readers saw stays there and comes to the disk later.
TEST_F(Early, ACommitThatFailsIsTriedAgain) {
  ASSERT_TRUE(name_soon("seen"));
  struct rlimit before {};
  getrlimit(RLIMIT_FSIZE, &before);
  const auto old = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{.rlim_cur = 4096, .rlim_max = before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const Status refused = store->write(
      [](WriteTransaction& t) { return t.create_state({.name = "refused"}).map([](auto) {}); });
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, old);
  ASSERT_FALSE(refused);
  EXPECT_EQ(names(), std::vector<std::string>{"seen"});
  ASSERT_TRUE(name_soon("later"));
  reopen();
  EXPECT_EQ(names(), (std::vector<std::string>{"later", "seen"}));
  expect_sound();
}

TEST(Overlay, ACursorWalksItsRowsAmongLmdbs) {
  TempDirectory directory;
  auto environment = Environment::open(directory.path(), std::uint64_t{1} << 30);
  ASSERT_TRUE(environment);
  std::map<Bytes, Bytes> model;
  std::minstd_rand random(7);
  const auto random_key = [&] {
    std::string key(1 + random() % 2, 'a');
    for (char& letter : key) letter = static_cast<char>('a' + random() % 5);
    return bytes_of(key);
  };
  Writer writer(**environment);
  for (int round = 0; round < 400; ++round) {
    const Bytes key = random_key();
    const bool erases = random() % 3 == 0;
    const Bytes value = bytes_of(std::to_string(round));
    std::promise<Status> outcome;
    writer.submit(
        [&](Txn& txn) -> Status {
          if (!erases) return txn.put(Table::kNames, key, value);
          KVFS_TRY(txn.erase(Table::kNames, key));
          return {};
        },
        [&](Status status) { outcome.set_value(std::move(status)); }, 0,
        random() % 20 == 0 ? Kept::kNow : Kept::kSoon);
    ASSERT_TRUE(outcome.get_future().get());
    if (erases) {
      model.erase(key);
    } else {
      model[key] = value;
    }
    const auto txn = (*environment)->begin_read();
    auto cursor = Cursor::open(*txn, Table::kNames);
    const Bytes from = random() % 2 == 0 ? Bytes() : random_key();
    auto expected = model.lower_bound(from);
    auto more = cursor->seek(from);
    for (; expected != model.end(); ++expected, more = cursor->next()) {
      ASSERT_TRUE(more && *more) << "round " << round;
      ASSERT_TRUE(std::ranges::equal(cursor->key(), expected->first));
      ASSERT_TRUE(std::ranges::equal(cursor->value(), expected->second));
      const auto got = txn->get(Table::kNames, expected->first);
      ASSERT_TRUE(got && *got && std::ranges::equal(**got, expected->second));
    }
    ASSERT_TRUE(more && !*more) << "round " << round;
  }
}

// kill -9: what came before an acknowledged write is there, what came after it is a prefix.
TEST(EarlyCrash, ACrashTakesBackOnlyTheLast) {
  TempDirectory directory;
  const pid_t child = fork();  // no store is open here
  if (child == 0) {
    auto store = Store::open({.directory = directory.path(), .map_bytes = std::uint64_t{1} << 30});
    if (!store) _exit(1);
    for (int i = 0; i < 40; ++i) {
      std::promise<Status> outcome;
      const auto body = [i](WriteTransaction& t) {
        return t.create_state({.name = std::string(1, static_cast<char>('A' + i))}).map([](auto) {
        });
      };
      const auto done = [&](Status status) { outcome.set_value(std::move(status)); };
      if (i == 20) {
        (*store)->write_async(body, done);
      } else {
        (*store)->write_soon(body, done);
      }
      if (!outcome.get_future().get()) _exit(1);
    }
    kill(getpid(), SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  auto store = Store::open({.directory = directory.path(), .map_bytes = std::uint64_t{1} << 30});
  ASSERT_TRUE(store);
  const auto entries = (*store)->list({}, "", 100);
  ASSERT_GT(entries->size(), 20U);
  for (std::size_t i = 0; i < entries->size(); ++i) {
    EXPECT_EQ((*entries)[i].name, std::string(1, static_cast<char>('A' + i)));
  }
  EXPECT_TRUE((*store)->verify()->problems.empty());
}

}  // namespace
}  // namespace kvfs::store
