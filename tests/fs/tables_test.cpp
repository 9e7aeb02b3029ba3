// The node table, names that hide, refusals, chores.
#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "fs/chores.h"
#include "fs/errno.h"
#include "fs/hidden_names.h"
#include "fs/node_table.h"
#include "fs/refusals.h"
#include "fs/scratch_names.h"

namespace kvfs::fs {
namespace {

class Plain : public Node {
 public:
  Plain(Ino ino, StateId state) : Node(ino), state_(state) {}
  Result<Attributes> attributes() override { return Attributes{}; }
  StateId state() const override { return state_; }

 private:
  StateId state_;
};

TEST(NodeTable, ANodeStaysUntilItIsForgottenAsOftenAsItWasNamed) {
  NodeTable table;
  const auto first = std::make_shared<Plain>(7, StateId{1});
  EXPECT_EQ(table.remember(first), first);
  EXPECT_EQ(table.remember(std::make_shared<Plain>(7, StateId{1})), first);
  table.forget(7, 1);
  EXPECT_EQ(table.find(7), first);
  table.forget(7, 1);
  EXPECT_EQ(table.find(7), nullptr);
  EXPECT_TRUE(table.of(StateId{1}).empty());
}

TEST(NodeTable, AStatesNodesAreFound) {
  NodeTable table;
  table.remember(std::make_shared<Plain>(7, StateId{1}));
  table.remember(std::make_shared<Plain>(8, StateId{1}));
  table.remember(std::make_shared<Plain>(9, StateId{2}));
  EXPECT_EQ(table.of(StateId{1}).size(), 2U);
  table.forget(8, 5);
  ASSERT_EQ(table.of(StateId{1}).size(), 1U);
  EXPECT_EQ(table.of(StateId{1}).front()->ino(), 7U);
}

TEST(HiddenNames, ANameIsBackAfterAMoment) {
  HiddenNames names;
  names.hide(5, "text");
  EXPECT_TRUE(names.hidden(5, "text"));
  EXPECT_FALSE(names.hidden(6, "text"));
  EXPECT_FALSE(names.hidden(5, "kv"));
  std::this_thread::sleep_for(HiddenNames::kMoment + std::chrono::milliseconds(50));
  EXPECT_FALSE(names.hidden(5, "text"));
}

TEST(HiddenNames, ShowingEndsHiding) {
  HiddenNames names;
  names.hide(5, "text");
  names.show(5, "text");
  EXPECT_FALSE(names.hidden(5, "text"));
}

TEST(Refusals, TheNewestComesFirstAndSuccessClearsIt) {
  Refusals refusals;
  refusals.note(StateId{1}, "ctl", {ErrorCode::kInvalid, "a", "b", "c"});
  refusals.note(StateId{1}, "params/seed", {ErrorCode::kInvalid, "d", "e", "f"});
  ASSERT_EQ(refusals.of(StateId{1}).size(), 2U);
  EXPECT_EQ(refusals.of(StateId{1}).front().subject, "params/seed");
  EXPECT_EQ(refusals.of(StateId{1}).front().message, "d: e; f");
  refusals.clear(StateId{1}, "params/seed");
  ASSERT_EQ(refusals.of(StateId{1}).size(), 1U);
  EXPECT_EQ(refusals.of(StateId{1}).front().subject, "ctl");
}

TEST(Chores, RunWhenTheyAreDue) {
  Chores chores;
  std::promise<int> late;
  std::promise<int> soon;
  std::atomic<int> order = 0;
  chores.post_after(std::chrono::milliseconds(60), [&] { late.set_value(++order); });
  chores.post([&] { soon.set_value(++order); });
  EXPECT_EQ(soon.get_future().get(), 1);
  EXPECT_EQ(late.get_future().get(), 2);
}

TEST(Chores, WhatIsNotDueYetIsDroppedAtTheEnd) {
  auto held = std::make_shared<int>(1);
  Chores chores;
  chores.post_after(std::chrono::hours(1), [held] {});
  chores.stop();
  EXPECT_EQ(held.use_count(), 1);
}

TEST(ScratchNames, AreThoseOfEditorsAndCopiers) {
  for (const char* name : {".q1.swp", ".nfs0001", "q1~", "q1.tmp", "4913", "#q1#", ".q1.AbCdEf"}) {
    EXPECT_TRUE(is_scratch_name(name)) << name;
  }
  for (const char* name : {"q1", "tmp", "4914", "q.txt"})
    EXPECT_FALSE(is_scratch_name(name)) << name;
}

TEST(Errno, EveryCodeHasOne) {
  EXPECT_EQ(errno_of({ErrorCode::kInvalid, "", "", ""}), EINVAL);
  EXPECT_EQ(errno_of({ErrorCode::kNotFound, "", "", ""}), ENOENT);
  EXPECT_EQ(errno_of({ErrorCode::kTooLarge, "", "", ""}), EFBIG);
  EXPECT_EQ(errno_of({ErrorCode::kAgain, "", "", ""}), EAGAIN);
  EXPECT_EQ(errno_of({ErrorCode::kNotEmpty, "", "", ""}), ENOTEMPTY);
  EXPECT_EQ(errno_of({ErrorCode::kCorrupt, "", "", ""}), EIO);
}

}  // namespace
}  // namespace kvfs::fs
