// Comparing: one prompt, or the turns of a chat, answered from a state by its whole cache ("full")
// and by what methods of pruning keep of it. What is asked, and what is told of it.
//
// All of it lives in memory, on forks: no row, no version, no reply; nothing is left when either
// side goes. Plain values but for ComparisonLink, which any thread may call.
//
// Each turn, the full method first, then the others one by one, each on its own cache:
//   1. prune (kBefore) · read the prompt · prune (kAfter);
//   2. answer, on a fork. `pyramid` prunes again every `refresh` tokens once the bottom layer holds
//      `start` entries, as params/prune has it;
//   3. read the FULL method's answer token by token, beside the full cache: the KL of the two
//      distributions at each token, the answer's perplexity. So it enters every history.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "codec/base/ids.h"
#include "codec/base/result.h"
#include "engine/sched/params.h"

namespace kvfs::sched {

// kAuto: before the prompt is read, as `kvfs prune` and then `kvfs ask` would; after it where the
// state is empty.
enum class PruneWhen { kAuto, kBefore, kAfter };

inline constexpr std::size_t kMostMethods = 32;

struct ComparisonRequest {
  StateId state;
  std::vector<std::string> methods;   // words of prune, or "full"; none: default_methods()
  std::optional<std::string> prompt;  // to be checked at once; what is read is said to the link
  ParamMap overrides;                 // temperature is 0 unless it is among them
  PruneWhen when = PruneWhen::kAuto;
};

// Where an answer parts from the full method's: index of the token, and how each goes on there.
struct FirstDifference {
  std::uint32_t token = 0;
  std::string full;  // "": it ends
  std::string own;
};

struct MethodResult {
  std::size_t turn = 0;
  std::size_t method = 0;  // of the turn's list
  std::string words;
  std::optional<Error> error;  // then nothing below holds
  std::string text;
  std::uint32_t tokens = 0;  // generated, the end token included
  std::string finish;        // "stop", "length"
  double prune_seconds = 0;  // reading again, choosing, dropping; refreshes included
  double prefill_seconds = 0;
  double generate_seconds = 0;  // of the first prune, the prompt and refreshes nothing
  double tokens_per_second = 0;
  std::uint64_t read_again_tokens = 0;
  std::uint32_t refreshes = 0;
  // Of the cache with the prompt and the full answer in it.
  std::uint64_t kv_bytes = 0;
  double retention = 1;                // of the full cache's bytes
  std::vector<std::uint32_t> lengths;  // of layers, from the bottom; where heads differ, the mean
  std::vector<std::uint32_t> budgets;  // of layers, as the words have it; full: none
  std::optional<int> window, refresh, start;
  std::optional<FirstDifference> differs;  // none: the same tokens
  std::vector<float> kl;                   // nats, a token of the full answer each
  double mean_kl = 0;
  double perplexity = 1;  // of the full answer
};

struct ComparisonTurn {  // begins
  std::size_t index = 0;
  std::uint64_t state_tokens = 0;
  std::uint64_t prompt_tokens = 0;
  std::vector<std::string> methods;
  bool prunes_before = true;
  std::string model;
  std::string kernel_class;
  double restore_seconds = 0;  // the first turn's: what it took to bring the state to the device
};
struct ComparisonProgress {
  std::string doing;  // "restoring", "reading again", "reading", "answering", "measuring"
  std::string words;  // of the method
  std::uint64_t done = 0;
  std::uint64_t of = 0;
};
struct ComparisonRefused {  // a turn; the comparison goes on
  Error error;
};
struct ComparisonTurnOver {
  std::size_t index = 0;
};
struct ComparisonOver {  // last
  std::optional<Error> error;
};
using ComparisonEvent = std::variant<ComparisonTurn, ComparisonProgress, MethodResult,
                                     ComparisonRefused, ComparisonTurnOver, ComparisonOver>;

// Between who asks and the engine. Owned by both (shared_ptr): who asks may go at any time.
class ComparisonLink {
 public:
  using Tell = std::function<void(ComparisonEvent)>;  // on the engine thread; must not wait
  ComparisonLink(Tell tell, std::function<void()> wake)
      : tell_(std::move(tell)), wake_(std::move(wake)) {}

  // --- who asks
  Status say(std::string prompt);  // the next turn; kBusy: one waits already
  void end();                      // no more turns
  void leave();                    // nobody listens any more

  // --- the engine
  std::optional<std::string> take();
  bool ended() const;
  bool left() const;
  void tell(ComparisonEvent event) const { tell_(std::move(event)); }

 private:
  const Tell tell_;
  const std::function<void()> wake_;
  mutable std::mutex mutex_;  // guards everything below
  std::optional<std::string> prompt_;
  bool ended_ = false;
  bool left_ = false;
};

// All at a half of so many entries, the full one first.
std::vector<std::string> default_methods(std::uint64_t tokens);

struct ComparedMethod {
  std::string words;                    // "full", or prune::to_words
  std::optional<prune::Policy> policy;  // full: none
};
// The full method is put first, whether it is named or not. kInvalid, kUnsupported: as read_policy.
Result<std::vector<ComparedMethod>> read_methods(const std::vector<std::string>& words);

}  // namespace kvfs::sched
