// What users do to states, and the catalog of models.
#include "engine/sched/verbs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <future>

#include "tests/engine/sched/house.h"

namespace kvfs::sched::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

template <class T, class Verb>
T answer(const Verb& verb) {
  std::promise<T> promise;
  verb([&](T result) { promise.set_value(std::move(result)); });
  return promise.get_future().get();
}

Result<StateId> create(House& house, StateId parent, std::string_view name,
                       const ParamMap& params = {}) {
  return answer<Result<StateId>>(
      [&](auto done) { create_state(house.store(), parent, name, {}, 0700, params, done); });
}

TEST(Verbs, NamesThatCannotBeAreRefused) {
  FakeControls controls;
  House house(controls);
  for (const std::string name : {"", ".", "..", "a/b"}) {
    EXPECT_EQ(create(house, {}, name).error().code, ErrorCode::kInvalid) << name;
  }
  EXPECT_EQ(create(house, {}, std::string(256, 'x')).error().code, ErrorCode::kInvalid);
  const auto state = create(house, {}, "text");  // at the top it is a name like any other
  ASSERT_TRUE(state);
  EXPECT_EQ(create(house, *state, "text").error().code, ErrorCode::kExists);
  EXPECT_EQ(create(house, {}, "text").error().code, ErrorCode::kExists);
  EXPECT_EQ(create(house, {}, "x", {{"top_p", "7"}}).error().code, ErrorCode::kInvalid);
}

TEST(Verbs, AForkStartsWithItsParentsVersionAndParams) {
  FakeControls controls;
  House house(controls);
  const StateId parent = house.make("p", {{"temperature", "0"}, {"max_tokens", "9"}});
  house.feed(parent, "text");
  const auto child = create(house, parent, "c", {{"max_tokens", "3"}});
  ASSERT_TRUE(child);
  const auto record = house.store().state(*child);
  EXPECT_EQ(record->version, house.store().state(parent)->version);
  EXPECT_EQ(record->params, (ParamMap{{"temperature", "0"}, {"max_tokens", "3"}}));
  const auto elsewhere = answer<Result<StateId>>(
      [&](auto done) { fork_state(house.store(), parent, {}, "e", {}, done); });
  ASSERT_TRUE(elsewhere);
  EXPECT_EQ(house.text(*elsewhere), "text");
}

TEST(Verbs, PathsLeadToStatesAndBack) {
  FakeControls controls;
  House house(controls);
  const StateId a = house.make("a");
  const StateId b = house.make("b", {}, a);
  EXPECT_EQ(*resolve(house.store(), "a/b"), b);
  EXPECT_EQ(*resolve(house.store(), "a/b/"), b);
  EXPECT_EQ(*path_of(house.store(), b), "a/b");
  EXPECT_THAT(resolve(house.store(), "a/c/d").error().message(),
              HasSubstr("there is no state a/c;"));
  EXPECT_FALSE(resolve(house.store(), ""));
  const auto moved =
      answer<Status>([&](auto done) { rename_state(house.store(), b, {}, "top", done); });
  ASSERT_TRUE(moved);
  EXPECT_EQ(*path_of(house.store(), b), "top");
}

TEST(Verbs, AnEmptyValueRestoresTheDefault) {
  FakeControls controls;
  House house(controls);
  const StateId state = house.make("s");
  const auto set = [&](std::string_view name, std::string_view value) {
    return answer<Status>([&](auto done) { set_param(house.store(), state, name, value, done); });
  };
  EXPECT_TRUE(set("temperature", "0.50\n"));
  EXPECT_EQ(house.store().state(state)->params, (ParamMap{{"temperature", "0.5"}}));
  EXPECT_FALSE(set("temperature", "hot"));
  EXPECT_EQ(house.store().state(state)->params, (ParamMap{{"temperature", "0.5"}}));
  EXPECT_TRUE(set("temperature", ""));
  EXPECT_TRUE(house.store().state(state)->params.empty());
}

TEST(Verbs, TheRootStatusHasALineForEachWordOfTheContract) {
  FakeControls controls;
  House house(controls, {"fake", "other"});
  house.feed(house.make("s"), "four");
  const auto status = root_status(house.store(), house.scheduler(), house.catalog());
  for (const std::string key :
       {"version", "device", "compute", "models", "queue", "prefilled_tokens", "decoded_tokens",
        "restored_tokens", "prefix_hit_tokens", "prefill_tokens_per_second",
        "restore_mb_per_second", "bytes_logical", "bytes_stored", "bytes_unique", "dedup_ratio"}) {
    EXPECT_THAT("\n" + status, HasSubstr("\n" + key + " ")) << key;
  }
  EXPECT_THAT(status, HasSubstr("models fake (loaded), other\n"));
  EXPECT_THAT(status, HasSubstr("prefilled_tokens 4\n"));
}

TEST(Status, LinesHaveTheirForms) {
  JobView job;
  job.record.name = "q";
  job.record.kind = store::JobKind::kAsk;
  job.record.params["max_tokens"] = "256";
  EXPECT_EQ(status_line(job), "q queued");
  job.record.status = store::JobStatus::kRunning;
  job.record.prompt_tokens = 2048;
  job.record.known_tokens = 256;
  job.read_tokens = 512;
  job.reading = true;
  EXPECT_EQ(status_line(job), "q reading 512/2048 (256 known)");
  job.reading = false;
  job.record.generated_tokens = 37;
  job.tokens_per_second = 12.34;
  EXPECT_EQ(status_line(job), "q running 37/256 12.3 tok/s");
  job.record.status = store::JobStatus::kDone;
  job.record.finish = "stop";
  job.record.milliseconds = 512;
  job.record.times = {.restore = 12, .recompute = 34, .known = 2, .read = 35, .generate = 410};
  EXPECT_EQ(status_line(job),
            "q done 2048 read (256 known 2 ms) 35 ms, 37 generated (stop) 410 ms, 0.5 s");
  job.record.prompt_tokens = 10;
  job.record.known_tokens = 0;
  job.record.restored_tokens = 2000;
  job.record.recomputed_tokens = 48;
  EXPECT_EQ(status_line(job),
            "q done 2000 restored 12 ms, 48 recomputed 34 ms, 10 read (0 known) 35 ms, "
            "37 generated (stop) 410 ms, 0.5 s");
  job.record.kind = store::JobKind::kFeed;
  job.record.restored_tokens = job.record.recomputed_tokens = 0;
  EXPECT_EQ(status_line(job), "q done 10 read (0 known) 35 ms, 0.5 s");
  job.record.status = store::JobStatus::kFailed;
  job.record.error = "what: why;\nwhat to do";
  EXPECT_EQ(status_line(job), "q error: what: why; what to do");
}

class CatalogTest : public ::testing::Test {
 protected:
  CatalogTest()
      : directory_(std::filesystem::path(::testing::TempDir()) /
                   ("kvfs-catalog-" + std::to_string(::getpid()))) {
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directories(directory_ / "deep");
    for (const auto* name : {"b.gguf", "a.gguf", "notes.txt", "deep/a.gguf"}) {
      std::ofstream(directory_ / name) << "fake";
    }
    options_.read = [this](const std::filesystem::path& path, model::Compute,
                           const model::DeviceChoice&, const std::filesystem::path&) {
      ++read_;
      return fake_card(path, controls_);
    };
  }
  ~CatalogTest() override { std::filesystem::remove_all(directory_); }

  std::filesystem::path directory_;
  FakeControls controls_;
  CatalogOptions options_;
  int read_ = 0;
};

TEST_F(CatalogTest, TheFirstModelNamedIsTheDefault) {
  options_.directory = directory_;
  options_.models = {"b"};
  const auto catalog = Catalog::open(options_);
  ASSERT_TRUE(catalog);
  EXPECT_THAT((*catalog)->names(), ElementsAre("b", "a"));
  EXPECT_EQ((*catalog)->default_name(), "b");
  EXPECT_EQ(read_, 1);  // the others' cards are read when they are asked for
  EXPECT_EQ((*(*catalog)->card("a"))->info.name, "a");
  EXPECT_EQ(*(*catalog)->card("a"), *(*catalog)->card("a"));
  EXPECT_EQ(read_, 2);
  EXPECT_THAT((*catalog)->card("c").error().message(), HasSubstr("b, a"));
  EXPECT_THAT(*(*catalog)->info_json("a"), HasSubstr("\"context_length\":4096"));
}

TEST_F(CatalogTest, TwoFilesOfOneNameAreRefused) {
  options_.models = {(directory_ / "a.gguf").string(), (directory_ / "deep/a.gguf").string()};
  EXPECT_EQ(Catalog::open(options_).error().code, ErrorCode::kExists);
  options_.models = {(directory_ / "a.gguf").string(), (directory_ / "deep/../a.gguf").string()};
  EXPECT_TRUE(Catalog::open(options_));  // one file named twice
}

TEST_F(CatalogTest, MissingModelsAreNamed) {
  options_.models = {"nowhere"};
  EXPECT_EQ(Catalog::open(options_).error().code, ErrorCode::kNotFound);
  options_.models = {"/no/such.gguf"};
  EXPECT_THAT(Catalog::open(options_).error().message(), HasSubstr("/no/such.gguf"));
  options_.models = {};
  EXPECT_EQ(Catalog::open(options_).error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace kvfs::sched::test
