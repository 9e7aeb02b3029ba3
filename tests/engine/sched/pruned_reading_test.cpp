// States that are pruned while they read, and those whose entries are moved to other positions, on
// the real model.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <future>
#include <mutex>

#include "engine/sched/rollback.h"
#include "engine/sched/verbs.h"
#include "tests/engine/sched/house.h"
#include "tests/engine/sched/real_house.h"

namespace kvfs::sched::test {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Le;
using ::testing::SizeIs;

std::string nights(int from, int to) {
  std::string text;
  for (int i = from; i < to; ++i) {
    text += " Night " + std::to_string(i) + ": the keeper saw " + std::to_string(i * 37 % 11) +
            " stars fall behind the hill, and wrote it down.";
  }
  return text;
}

class PrunedReading : public RealHouse {
 protected:
  StateId make(const std::string& name, const std::string& policy, int chunk) {
    ParamMap params = raw(12);
    params["prune"] = policy;
    params["prefill_chunk"] = std::to_string(chunk);
    return house_->make(name, params);
  }
  Outcome prune(StateId state, const std::string& words) {
    return house_->run(state, store::JobKind::kPrune, words);
  }
  void set(StateId state, const std::string& name, const std::string& value) {
    std::promise<Status> done;
    set_param(house_->store(), state, name, value,
              [&](Status status) { done.set_value(std::move(status)); });
    ASSERT_TRUE(done.get_future().get());
  }
  void expect_sound() {
    const auto report = house_->store().verify();
    ASSERT_TRUE(report);
    EXPECT_THAT(report->problems, IsEmpty());
  }
};

TEST_F(PrunedReading, ALongTextStaysWithinItsBudgetAndItsIdentitySaysHow) {
  const StateId state = make("pieces", "keep_last n=96 sinks=4", 128);
  std::mutex mutex;
  std::vector<Refreshed> heard;
  const auto watch = house_->scheduler().watch([&](const Refreshed& news) {
    const std::lock_guard lock(mutex);
    heard.push_back(news);
  });
  const auto fed = house_->feed(state, nights(0, 24));
  house_->scheduler().unwatch(watch);
  ASSERT_EQ(fed.record.status, store::JobStatus::kDone) << fed.record.error;
  const auto version = house_->version(state);
  const auto pieces = version.n_tokens / 128;
  const std::lock_guard lock(mutex);
  ASSERT_THAT(heard, SizeIs(pieces));
  for (std::size_t i = 0; i < pieces; ++i) {
    EXPECT_EQ(heard[i].state, state);
    EXPECT_EQ(heard[i].refresh.read, 128 * (i + 1));
    EXPECT_THAT(heard[i].refresh.before, Each(i == 0 ? 128U : 228U));
    EXPECT_THAT(heard[i].refresh.lengths, Each(100U));
  }
  for (const auto& extent : version.extents)
    EXPECT_THAT(extent.lengths, Each(100 + version.n_tokens % 128));
  EXPECT_EQ(version.next_pos, static_cast<Position>(version.n_tokens));
  EXPECT_THAT(version.origin_detail, HasSubstr(R"("prefill_chunk":128)"));
  EXPECT_THAT(house_->scheduler().status_text(state), HasSubstr(" pruned at 128 read \""));
  expect_sound();
}

TEST_F(PrunedReading, HoweverItIsCutOtherwiseItIsTheSame) {
  const std::string policy = "pyramid window=8 bottom=96 top=24 refresh=5";
  const StateId whole = make("whole", policy, 64), parts = make("parts", policy, 64),
                known = make("known", policy, 64);
  house_->feed(whole, nights(0, 11));
  house_->feed(parts, nights(0, 4));
  house_->reopen();
  house_->feed(parts, nights(4, 11));
  EXPECT_EQ(house_->files(whole), house_->files(parts));
  EXPECT_EQ(house_->version(whole).origin_detail, house_->version(parts).origin_detail);
  // What is known of the text by prefix is of use up to where the first piece ends.
  const StateId full = house_->make("full", raw(1));
  house_->feed(full, nights(0, 11));
  const auto fed = house_->feed(known, nights(0, 11));
  EXPECT_LT(fed.record.known_tokens, 65U);
  EXPECT_EQ(house_->files(whole), house_->files(known));
  EXPECT_NE(house_->files(whole), house_->files(full));
  // And an answer goes on from all of them alike, a prompt that ends with a piece included.
  EXPECT_EQ(house_->go_on(whole, " Then").text, house_->go_on(parts, " Then").text);
  house_->step(whole, 8);
  house_->step(parts, 3);
  house_->reopen();
  house_->step(parts, 5);
  EXPECT_EQ(house_->files(whole), house_->files(parts));
  expect_sound();
}

TEST_F(PrunedReading, AChunkWithoutAPolicyChangesNothing) {
  const StateId plain = house_->make("plain", raw(4)), off = make("off", "off", 64);
  for (const StateId state : {plain, off}) house_->feed(state, nights(0, 8));
  EXPECT_EQ(house_->files(plain), house_->files(off));
  EXPECT_EQ(house_->version(off).origin, store::Origin::kComputed);
}

// --- positions=compact

TEST_F(PrunedReading, MovedEntriesMakeRoomInTheContextAndTheTextStaysWhole) {
  const StateId state = house_->make("moved", raw(10));
  house_->feed(state, nights(0, 20));
  const auto full = house_->version(state);
  const auto text = house_->text(state);
  const auto tokens = house_->files(state)["tokens.npy"];
  for (const std::string method : {"adakv capacity=64 window=16", "keep_last n=64 sinks=4",
                                   "pyramid window=8 bottom=80 top=16 select=mean"}) {
    const StateId stays = house_->make("stays-" + method.substr(0, 5), {}, state);
    const auto done = prune(stays, method + " positions=compact");
    ASSERT_EQ(done.record.status, store::JobStatus::kDone) << done.record.error;
    const auto version = house_->version(stays);
    EXPECT_EQ(version.n_tokens, full.n_tokens);
    EXPECT_LT(version.next_pos, static_cast<Position>(full.n_tokens) * 3 / 4);
    EXPECT_THAT(done.text,
                HasSubstr("moved to positions below " + std::to_string(version.next_pos)));
    EXPECT_THAT(version.origin_detail, HasSubstr("positions=compact"));
    EXPECT_EQ(house_->text(stays), text);
    EXPECT_EQ(house_->files(stays)["tokens.npy"], tokens);

    const StateId leaves = house_->make("leaves-" + method.substr(0, 5), {}, stays);
    const auto said = house_->go_on(stays, " Then").text;
    house_->step(stays, 6);
    house_->reopen();
    EXPECT_EQ(house_->go_on(leaves, " Then").text, said) << method;
    house_->reopen();
    house_->step(leaves, 6);
    EXPECT_EQ(house_->files(stays), house_->files(leaves)) << method;
    const auto later = house_->version(stays);
    EXPECT_EQ(later.n_tokens - later.next_pos, version.n_tokens - version.next_pos);
    EXPECT_THAT(house_->text(stays), ::testing::StartsWith(text + " Then"));

    const auto back =
        rollback(house_->store(), house_->scheduler(), house_->catalog(), stays, full.n_tokens - 1);
    EXPECT_THAT(back.error().message(), HasSubstr("positions=compact moved"));
    ASSERT_TRUE(
        rollback(house_->store(), house_->scheduler(), house_->catalog(), stays, full.n_tokens));
    EXPECT_EQ(house_->version(stays).next_pos, version.next_pos);
    const auto again =
        house_->scheduler().submit(house_->submission(stays, store::JobKind::kPrune, "kvzip"));
    EXPECT_THAT(again.error().message(), HasSubstr("moved away"));
    EXPECT_EQ(prune(stays, "snapkv capacity=40 window=8").record.status, store::JobStatus::kDone);
    EXPECT_THAT(house_->version(stays).origin_detail, HasSubstr(R"("moved":)"));
  }
  expect_sound();
}

TEST_F(PrunedReading, MovingWhileItReadsAndGeneratesIsTheSameInParts) {
  const std::string policy = "keep_last n=80 sinks=4 positions=compact";
  const StateId whole = make("lean", policy, 96), parts = make("lean-parts", policy, 96);
  house_->feed(whole, nights(0, 18));
  house_->feed(parts, nights(0, 7));
  house_->reopen();
  house_->feed(parts, nights(7, 18));
  const auto version = house_->version(whole);
  EXPECT_THAT(version.next_pos, Le(84 + 96));
  EXPECT_GT(version.n_tokens, 300U);
  EXPECT_EQ(house_->files(whole), house_->files(parts));
  for (const StateId state : {whole, parts}) {
    set(state, "prune", "pyramid window=8 bottom=64 top=24 refresh=6 start=16 positions=compact");
  }
  const auto said = house_->go_on(whole, " Then", {{"max_tokens", "20"}}).text;
  const auto first = house_->go_on(parts, " Then", {{"max_tokens", "12"}}).text;
  house_->reopen();
  EXPECT_EQ(first + house_->step(parts, 8).text, said);
  EXPECT_EQ(house_->files(whole), house_->files(parts));
  EXPECT_LT(house_->version(whole).next_pos, version.next_pos + 20);
  EXPECT_EQ(house_->version(whole).origin_detail, house_->version(parts).origin_detail);
  expect_sound();
}

// A tiny model whose context a few lines fill.
class BeyondTheContext : public ::testing::Test {
 protected:
  StateId make(const std::string& name, const ParamMap& more) {
    ParamMap params{{"template", "raw"}, {"temperature", "0"}, {"max_tokens", "12"}};
    for (const auto& [key, value] : more) params[key] = value;
    return house_.make(name, params);
  }
  std::int32_t context() { return (*house_.catalog().card({}))->info.context_length; }

  House house_{std::filesystem::path(KVFS_REPO_DIR) / "tests/blackbox/hf_folder/model"};
  const ParamMap moving_{{"prune", "keep_last n=80 sinks=4 positions=compact"},
                         {"prefill_chunk", "64"}};
};

TEST_F(BeyondTheContext, ATextOfManyContextsIsReadAndAnswered) {
  const std::string text = nights(0, 80);
  const StateId whole = make("whole", moving_), parts = make("parts", moving_);
  const auto fed = house_.feed(whole, text);
  ASSERT_EQ(fed.record.status, store::JobStatus::kDone) << fed.record.error;
  const auto version = house_.version(whole);
  EXPECT_GT(version.n_tokens, std::uint64_t{3} * static_cast<std::uint64_t>(context()));
  EXPECT_THAT(version.next_pos, Le(84 + 64));
  for (const auto& extent : version.extents) EXPECT_THAT(extent.lengths, Each(Le(84U + 64U)));
  EXPECT_EQ(house_.text(whole), text);

  std::size_t at = 0;
  for (const std::size_t size : {text.find(" Night 9"), text.find(" Night 43"), text.size()}) {
    ASSERT_EQ(house_.feed(parts, text.substr(at, size - at)).record.status,
              store::JobStatus::kDone);
    at = size;
    house_.reopen();
  }
  EXPECT_EQ(house_.files(parts), house_.files(whole));
  const auto said = house_.ask(whole, " Which night").text;
  EXPECT_FALSE(said.empty());
  EXPECT_EQ(house_.ask(parts, " Which night").text, said);
  EXPECT_EQ(house_.go_on(parts, " Which night").text, said);
  EXPECT_THAT(house_.text(parts), ::testing::StartsWith(text + " Which night"));
}

TEST_F(BeyondTheContext, WithoutMovingOrPiecesItIsRefusedAndNothingIsRead) {
  int number = 0;
  for (const std::string left_out : {"prune", "prefill_chunk", "positions"}) {
    ParamMap params = moving_;
    if (left_out == "positions") {
      params["prune"] = "keep_last n=80 sinks=4";
    } else {
      params.erase(left_out);
    }
    const StateId state = make("s" + std::to_string(number++), params);
    const auto refused =
        house_.scheduler().submit(house_.submission(state, store::JobKind::kFeed, nights(0, 40)));
    ASSERT_FALSE(refused) << left_out;
    EXPECT_EQ(refused.error().code, ErrorCode::kTooLarge) << refused.error().message();
    EXPECT_FALSE(house_.store().state(state)->version) << left_out;
  }
}

}  // namespace
}  // namespace kvfs::sched::test
