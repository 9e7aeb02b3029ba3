// A store in a temporary directory and a scheduler on it, on a fake or the real model; what the
// tests ask of them in one line each. reopen() takes both down and up again.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "engine/sched/scheduler.h"
#include "engine/sched/verbs.h"
#include "tests/engine/sched/fake_model.h"

namespace kvfs::sched::test {

inline const ParamMap kGreedy{{"temperature", "0"}, {"max_tokens", "40"}};

inline ParamMap greedy(int max_tokens) {
  return {{"temperature", "0"}, {"max_tokens", std::to_string(max_tokens)}};
}

template <class Condition>
bool eventually(const Condition& condition) {
  for (int i = 0; i < 5000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return false;
}

struct Outcome {
  store::JobRecord record;
  std::string text;
};

class House {
 public:
  // One fake model for each name; the first is the default.
  explicit House(FakeControls& controls, std::vector<std::string> models = {"fake"});
  explicit House(const std::filesystem::path& real_model);
  ~House();

  void reopen(std::function<void()> between = [] {});
  store::Store& store() { return *store_; }
  Scheduler& scheduler() { return *scheduler_; }
  Catalog& catalog() { return *catalog_; }

  StateId make(const std::string& name, const ParamMap& params = {}, StateId parent = {},
               std::uint32_t uid = 0);
  Submission submission(StateId state, store::JobKind kind, const std::string& text,
                        const ParamMap& overrides = {});
  std::string submit(Submission submission);  // the job's name
  Outcome wait(StateId state, const std::string& job);
  Outcome run(StateId state, store::JobKind kind, const std::string& text,
              const ParamMap& overrides = {});
  Outcome step(StateId state, std::int32_t steps);
  Outcome feed(StateId state, const std::string& text) {
    return run(state, store::JobKind::kFeed, text);
  }
  Outcome ask(StateId state, const std::string& text, const ParamMap& overrides = {}) {
    return run(state, store::JobKind::kAsk, text, overrides);
  }
  Outcome go_on(StateId state, const std::string& text, const ParamMap& overrides = {}) {
    return run(state, store::JobKind::kContinue, text, overrides);
  }

  store::VersionRecord version(StateId state);
  // By name: text, the root, and the hash of tokens.npy and of every file of kv/.
  std::map<std::string, std::string> files(StateId state);
  std::string text(StateId state);

  SchedulerOptions options;

 private:
  void open();

  std::filesystem::path directory_;
  CatalogOptions catalog_options_;
  std::unique_ptr<store::Store> store_;
  std::unique_ptr<Catalog> catalog_;
  std::unique_ptr<Scheduler> scheduler_;
  int next_job_ = 1;
};

// Of the i-th job of a kind that takes text.
std::string long_text(std::size_t bytes, const std::string& seed = "");

}  // namespace kvfs::sched::test
