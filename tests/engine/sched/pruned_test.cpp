// Pruned states on the real model: saved, restored, forked, gone on from, by every byte of kv/.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>

#include "engine/sched/rollback.h"
#include "engine/sched/verbs.h"
#include "tests/engine/sched/house.h"
#include "tests/engine/sched/real_house.h"

namespace kvfs::sched::test {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

std::string story(const std::string& title = "") {
  std::string text = title;
  for (int i = 0; i < 26; ++i) {
    text += " Night " + std::to_string(i) + ": the keeper saw " + std::to_string(i * 37 % 11) +
            " stars fall behind the hill, and wrote it down.";
  }
  return text;
}

class PrunedState : public RealHouse {
 protected:
  Outcome prune(StateId state, const std::string& words) {
    return house_->run(state, store::JobKind::kPrune, words);
  }
  StateId fed(const std::string& name, const ParamMap& params = raw(24),
              const std::string& title = "") {
    const StateId state = house_->make(name, params);
    house_->feed(state, story(title));
    return state;
  }
  StateId fork(StateId of, const std::string& name) { return house_->make(name, {}, of); }
  StateId snapshot(StateId state, const std::string& name) {
    std::promise<Result<StateId>> made;
    take_snapshot(house_->store(), state, name,
                  [&](Result<StateId> id) { made.set_value(std::move(id)); });
    return made.get_future().get().value();
  }
  void expect_sound() {
    const auto report = house_->store().verify();
    ASSERT_TRUE(report);
    EXPECT_THAT(report->problems, IsEmpty());
  }
  std::string refused(StateId state, const std::string& words) {
    const auto made =
        house_->scheduler().submit(house_->submission(state, store::JobKind::kPrune, words));
    return made ? "accepted" : made.error().message();
  }
};

TEST_F(PrunedState, SavedAndRestoredItGoesOnAsIfItHadStayed) {
  const StateId full = fed("full");
  const auto words = {"pyramid window=16 bottom=160 top=32", "snapkv capacity=64 window=16",
                      "random keep=0.3 seed=4", "drop from=100 to=300"};
  std::vector<std::pair<StateId, StateId>> pairs;
  for (const std::string method : words) {
    const std::string name = method.substr(0, method.find(' '));
    const StateId stays = fork(full, name + "-stays"), leaves = fork(full, name + "-leaves");
    for (const StateId state : {stays, leaves}) {
      const auto done = prune(state, method);
      EXPECT_EQ(done.record.status, store::JobStatus::kDone) << done.record.error;
    }
    EXPECT_EQ(house_->files(stays), house_->files(leaves)) << method;
    EXPECT_EQ(house_->version(stays).origin, store::Origin::kPruned);
    EXPECT_LT(house_->version(stays).kv_bytes, house_->version(full).kv_bytes * 4 / 5);
    EXPECT_EQ(house_->text(stays), house_->text(full));
    EXPECT_EQ(house_->files(stays)["tokens.npy"], house_->files(full)["tokens.npy"]);
    house_->go_on(stays, " Then");
    house_->step(stays, 5);
    pairs.emplace_back(stays, leaves);
  }
  expect_sound();
  house_->reopen();
  std::vector<StateId> branches;
  for (const auto& [stays, leaves] : pairs) {
    house_->go_on(leaves, " Then");
    branches.push_back(fork(leaves, "branch"));
    house_->step(branches.back(), 5);
  }
  house_->reopen();
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const auto& [stays, leaves] = pairs[i];
    house_->step(leaves, 5);
    EXPECT_EQ(house_->files(stays), house_->files(leaves));
    EXPECT_EQ(house_->files(stays), house_->files(branches[i]));
    // On the device it takes over what the other brought there.
    EXPECT_EQ(house_->ask(stays, " So").text, house_->ask(leaves, " So").text);
    EXPECT_EQ(house_->version(stays).origin_detail, house_->version(leaves).origin_detail);
  }
  expect_sound();
}

TEST_F(PrunedState, WhatKeepsEverythingChangesNothing) {
  const StateId state = fed("kept");
  const auto before = house_->store().state(state)->version;
  const auto done = prune(state, "keep_last n=100000");
  EXPECT_EQ(done.record.status, store::JobStatus::kDone) << done.record.error;
  EXPECT_THAT(done.record.finish, HasSubstr("nothing to drop"));
  EXPECT_EQ(house_->store().state(state)->version, before);
}

TEST_F(PrunedState, WhatWasDroppedIsFreedAndASnapshotBringsItBack) {
  const StateId state = fed("freed", raw(4), "Shared with none.");
  const auto full = house_->files(state);
  const StateId kept = snapshot(state, "v1");
  prune(state, "keep_last n=64 sinks=4");
  ASSERT_TRUE(rollback_to(house_->store(), house_->scheduler(), state, "v1"));
  EXPECT_EQ(house_->files(state), full);

  prune(state, "keep_last n=64 sinks=4");
  const auto bytes = house_->version(kept).kv_bytes;
  const auto before = house_->store().statistics().bytes_unique;
  std::promise<Status> removed;
  remove_state(house_->store(), house_->scheduler(), kept,
               [&](Status done) { removed.set_value(std::move(done)); });
  ASSERT_TRUE(removed.get_future().get());
  ASSERT_TRUE(house_->store().collect());
  EXPECT_GT(before - house_->store().statistics().bytes_unique, bytes * 3 / 4);
  expect_sound();
}

TEST_F(PrunedState, AnAnswerOfAPrunedStateIsNeverFoundByPrefix) {
  const StateId state = fed("hidden", raw(4));
  prune(state, "keep_last n=300");
  house_->go_on(state, " Then");
  const auto version = house_->version(state);
  for (const BlockId id : version.blocks) EXPECT_FALSE(house_->store().block(id)->key);
}

TEST_F(PrunedState, PrunedTwiceItSaysBoth) {
  const StateId state = fed("twice");
  const auto root = house_->version(state).root.hex();
  prune(state, "knorm keep=0.5");
  prune(state, "keep_last n=200");
  const auto version = house_->version(state);
  EXPECT_THAT(version.origin_detail,
              ::testing::AllOf(HasSubstr(R"("method":"keep_last","parameters":"n=200 sinks=0")"),
                               HasSubstr(R"("before":{"kind":"pruned","method":"knorm")"),
                               HasSubstr(root)));
  for (const auto& extent : version.extents) EXPECT_THAT(extent.lengths, ::testing::Each(200U));
}

TEST_F(PrunedState, ARollbackThatWouldLeaveAHeadNothingIsRefused) {
  const StateId state = fed("back");
  const auto n = house_->version(state).n_tokens;
  prune(state, "keep_last n=100");
  const auto before = house_->files(state);
  const Status gone = rollback(house_->store(), house_->scheduler(), house_->catalog(), state, 300);
  EXPECT_THAT(gone.error().message(), HasSubstr("keeps nothing of its first 300 tokens"));
  EXPECT_EQ(house_->files(state), before);
  ASSERT_TRUE(rollback(house_->store(), house_->scheduler(), house_->catalog(), state, n - 50));
  EXPECT_EQ(house_->version(state).extents[0].lengths[0], 50U);
  EXPECT_EQ(house_->ask(state, " Then").record.status, store::JobStatus::kDone);
}

TEST_F(PrunedState, AnswersGoOnWhileAMethodReadsTheTextAgain) {
  const StateId read = fed("read"), other = fed("other", raw(3), "Another.");
  const std::uint64_t tokens = house_->version(read).n_tokens;
  const auto job =
      house_->submit(house_->submission(read, store::JobKind::kPrune, "kvzip keep=0.5"));
  const auto asked = house_->submit(house_->submission(other, store::JobKind::kAsk, " Then"));
  EXPECT_EQ(house_->wait(other, asked).record.status, store::JobStatus::kDone);
  EXPECT_EQ(house_->scheduler().jobs(read).front().record.status, store::JobStatus::kRunning);
  const auto done = house_->wait(read, job);
  EXPECT_EQ(done.record.status, store::JobStatus::kDone) << done.record.error;
  EXPECT_GT(done.record.prompt_tokens, tokens);  // the text, and how it was asked for
  EXPECT_THAT(done.text, HasSubstr(std::to_string(done.record.prompt_tokens) + " tokens again"));
  EXPECT_NEAR(static_cast<double>(house_->version(read).kv_bytes),
              static_cast<double>(house_->version(other).kv_bytes) / 2,
              static_cast<double>(house_->version(other).kv_bytes) / 50);
}

TEST_F(PrunedState, WhatReadsTheTextAgainCanBeCanceled) {
  const StateId state = fed("canceled");
  const auto before = house_->files(state);
  const auto job =
      house_->submit(house_->submission(state, store::JobKind::kPrune, "kvzip keep=0.5"));
  ASSERT_TRUE(house_->scheduler().cancel(state, job));
  EXPECT_EQ(house_->wait(state, job).record.status, store::JobStatus::kCanceled);
  EXPECT_EQ(house_->files(state), before);
}

TEST_F(PrunedState, WrongInputIsRefusedInASentence) {
  const StateId state = fed("wrong");
  EXPECT_THAT(refused(state, "best"), HasSubstr("no such method"));
  EXPECT_THAT(refused(state, "snapkv window=400 capacity=300"), HasSubstr("window=400"));
  EXPECT_THAT(refused(state, "keep_last n=-3"), HasSubstr("n=-3"));
  EXPECT_THAT(refused(state, "knorm keep=nan"), HasSubstr("keep=nan"));
  EXPECT_THAT(refused(state, "knorm keep=0"), HasSubstr("keep=0"));
  EXPECT_THAT(refused(state, "pyramid window=160 positions=close"), HasSubstr("keep or compact"));
  EXPECT_THAT(refused(state, "drop from=90000 to=90001"), HasSubstr("there is nothing from 90000"));
  EXPECT_THAT(refused(house_->make("empty"), "knorm"), HasSubstr("the state has no tokens"));
  const auto all = prune(state, "drop from=0 to=100000");
  EXPECT_THAT(all.record.error, HasSubstr("would keep nothing"));
  EXPECT_EQ(house_->version(state).origin, store::Origin::kComputed);

  const auto job = house_->submit(house_->submission(state, store::JobKind::kContinue, " Then"));
  const auto busy =
      house_->scheduler().submit(house_->submission(state, store::JobKind::kPrune, "knorm"));
  ASSERT_FALSE(busy);
  EXPECT_EQ(busy.error().code, ErrorCode::kBusy);
  house_->wait(state, job);
}

// --- while generating
// ---------------------------------------------------------------------------

const std::string kPyramid = "pyramid window=8 bottom=64 top=24 refresh=10 start=100";

ParamMap pruning(int max_tokens) {
  return {{"template", "raw"},
          {"temperature", "0"},
          {"max_tokens", std::to_string(max_tokens)},
          {"prune", kPyramid}};
}

TEST_F(PrunedState, AReplyInTwoPartsIsPrunedAsOneAtAStretch) {
  const StateId whole = fed("whole", pruning(45)), parts = fed("parts", pruning(45));
  const auto said = house_->go_on(whole, " Then");
  // 20: the refresh that is due then takes its scores out of the step that computes the last token
  // again.
  const auto first = house_->go_on(parts, " Then", {{"max_tokens", "20"}});
  house_->reopen();
  const auto second = house_->step(parts, 3);
  house_->reopen();
  const StateId branch = fork(parts, "branch");
  const auto third = house_->step(parts, 22);
  house_->step(branch, 22);
  EXPECT_EQ(first.text + second.text + third.text, said.text);
  EXPECT_EQ(house_->files(whole), house_->files(parts));
  EXPECT_EQ(house_->files(whole), house_->files(branch));
  EXPECT_EQ(house_->version(whole).origin_detail, house_->version(parts).origin_detail);
  expect_sound();
}

TEST_F(PrunedState, EachRefreshHasItsLineAndFreesMemory) {
  const StateId state = fed("lines", pruning(45));
  const auto before = house_->scheduler().counters().kv_bytes;
  const auto full = house_->version(state);
  const std::string job =
      house_->submit(house_->submission(state, store::JobKind::kContinue, " Then"));
  house_->wait(state, job);
  const auto jobs = house_->scheduler().jobs(state);
  const auto& refreshes = jobs.front().refreshes;
  ASSERT_THAT(refreshes, SizeIs(4));
  for (std::size_t i = 0; i < refreshes.size(); ++i) {
    EXPECT_EQ(refreshes[i].step, 10 * (i + 1));
    EXPECT_THAT(refreshes[i].lengths, SizeIs(full.layers.size()));
    EXPECT_EQ(refreshes[i].top_budget, 24U);
    EXPECT_LT(refreshes[i].kv_bytes, full.kv_bytes / 2);
    EXPECT_FALSE(refreshes[i].text.empty());
  }
  const std::string status = house_->scheduler().status_text(state);
  EXPECT_THAT(status, ::testing::StartsWith(job + " done"));
  EXPECT_THAT(status, HasSubstr("\n" + job + " pruned at 40 \""));
  // The lengths after the last refresh, and what came since.
  const auto version = house_->version(state);
  EXPECT_EQ(version.extents.back().lengths[0], refreshes.back().lengths.back() + 5);
  EXPECT_LT(house_->scheduler().counters().kv_bytes, before - full.kv_bytes / 2);
}

TEST_F(PrunedState, WhatCannotBeDoneAgainAndAgainIsNoParameter) {
  const auto refusal = [](const std::string& words) {
    const auto checked = check_param("prune", words);
    return checked ? *checked : checked.error().message();
  };
  EXPECT_EQ(refusal("off"), "off");
  EXPECT_EQ(refusal("pyramid top=64"),
            "pyramid window=128 bottom=512 top=64 refresh=16 start=256 select=heads");
  EXPECT_THAT(refusal("kvzip keep=100"), HasSubstr("reads the whole text again"));
  EXPECT_THAT(refusal("knorm keep=0.5"), HasSubstr("give a count"));
  EXPECT_THAT(refusal("drop from=1 to=2"), HasSubstr("prune the saved state"));
  EXPECT_THAT(refusal("pyramid refresh=0"), HasSubstr("refresh=0"));
}

}  // namespace
}  // namespace kvfs::sched::test
