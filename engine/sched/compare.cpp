#include "engine/sched/compare.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "engine/sched/pruning.h"

namespace kvfs::sched {

Status ComparisonLink::say(std::string prompt) {
  {
    const std::lock_guard lock(mutex_);
    if (prompt_) {
      return fail(ErrorCode::kBusy, "turn of a comparison", "another one waits already",
                  "wait for its results");
    }
    if (ended_) return fail(ErrorCode::kInvalid, "turn of a comparison", "it takes no more turns");
    prompt_ = std::move(prompt);
  }
  wake_();
  return {};
}

void ComparisonLink::end() {
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
  }
  wake_();
}

void ComparisonLink::leave() {
  {
    const std::lock_guard lock(mutex_);
    left_ = true;
  }
  wake_();
}

std::optional<std::string> ComparisonLink::take() {
  const std::lock_guard lock(mutex_);
  return std::exchange(prompt_, std::nullopt);
}

bool ComparisonLink::ended() const {
  const std::lock_guard lock(mutex_);
  return ended_;
}

bool ComparisonLink::left() const {
  const std::lock_guard lock(mutex_);
  return left_;
}

std::vector<std::string> default_methods(std::uint64_t tokens) {
  const auto half = std::max<std::uint64_t>(tokens / 2, 10);
  const auto number = [](std::uint64_t value) {
    return std::to_string(std::max<std::uint64_t>(value, 1));
  };
  return {"full",
          "kvzip keep=0.5",
          "expected keep=0.5",
          "snapkv capacity=" + number(half) +
              " window=" + number(std::min<std::uint64_t>(64, half / 2)),
          "pyramid window=" + number(half / 5) + " bottom=" + number(half * 8 / 5) +
              " top=" + number(half * 2 / 5) + " select=mean",
          "keep_last n=" + number(half - 4) + " sinks=4"};
}

Result<std::vector<ComparedMethod>> read_methods(const std::vector<std::string>& words) {
  if (words.size() > kMostMethods) {
    return fail(ErrorCode::kTooLarge, "compare",
                std::to_string(words.size()) + " methods are named",
                "name " + std::to_string(kMostMethods) + " at most");
  }
  std::vector<ComparedMethod> out{{.words = "full", .policy = std::nullopt}};
  for (const std::string& word : words) {
    const auto begin = word.find_first_not_of(" \t\n");
    const auto end = word.find_last_not_of(" \t\n");
    if (begin == std::string::npos) {
      return fail(ErrorCode::kInvalid, "compare", "a method without words",
                  "name full or one of kvfs prune's, with its parameters");
    }
    if (word.substr(begin, end - begin + 1) == "full") continue;
    KVFS_ASSIGN(prune::Policy policy, read_policy(word));
    out.push_back({.words = prune::to_words(policy), .policy = std::move(policy)});
  }
  return out;
}

}  // namespace kvfs::sched
