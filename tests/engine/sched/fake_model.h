// A model of a few bytes a token, for what a real one cannot be asked to do: fail at a word, be
// slow on purpose, count its calls. Its KV is a hash chain, so "same history, same bits" holds
// exactly where it should: each row follows from the rows before it, the token, the position and
// the path. Tokens are bytes; it answers in lower-case letters.
#pragma once

#include <atomic>
#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include "engine/model/model.h"
#include "engine/sched/catalog.h"
#include "engine/sched/scheduler.h"

namespace kvfs::sched::test {

inline constexpr std::int32_t kFakeSlice = 300;  // not on the grid, on purpose

struct FakeControls {
  std::atomic<int> slice_delay_us{0};
  std::atomic<int> step_delay_us{0};
  std::atomic<TokenId> prefill_fails_at{-1};  // a token that breaks the device
  std::atomic<TokenId> decode_fails_after{-1};
  std::atomic<bool> ends{false};  // says its end token now and then
  std::atomic<bool> one_path{false};
  std::atomic<int> max_batch{4};
  std::atomic<int> most_ahead{3};  // steps; 0: it only decodes
  std::atomic<int> steps_launched{0}, steps_decoded{0};
  std::atomic<Position> hear_fails_after{-1};
  std::atomic<bool> takes_stored{false};  // from any thread; as they are kept
  std::atomic<int> stored_pieces{0};
  std::atomic<bool> finds_damage{false};  // in what it took so
  std::atomic<int> largest_batch{0};
  std::atomic<std::int32_t> prefill_alone{kFakeSlice};
  std::atomic<int> largest_slice{0};
  std::atomic<std::uint64_t> positions_used{0};
  std::atomic<std::uint64_t> budget_positions{1 << 20};
  std::string kernel_class = "fake-1";           // set before loading
  std::map<std::string, std::uint64_t> weights;  // bytes in memory, by name; set before loading
  DType kv_dtype = DType::kF32;
};

inline constexpr TokenId kEnd = 256;
inline constexpr std::int32_t kContext = 4096;

Result<std::unique_ptr<model::ModelCard>> fake_card(const std::filesystem::path& path,
                                                    const FakeControls& controls);
std::unique_ptr<model::Model> fake_model(const model::ModelCard& card, FakeControls& controls);

}  // namespace kvfs::sched::test
