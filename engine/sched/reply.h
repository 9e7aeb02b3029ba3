// The reply of one job as it grows. Readers never block: they read what is there and, at the end of
// a reply that is still growing, leave a callback.
//
// Any thread. Owned jointly by the scheduler (while the job is pending or running) and by open
// readers, hence shared_ptr. Callbacks are called once, without locks held, from the thread that
// appends; they must be short (answer a parked request) and may call any method here.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "codec/base/bytes.h"
#include "codec/base/result.h"
#include "engine/model/sampling.h"

namespace kvfs::sched {

class Reply {
 public:
  using Ticket = std::uint64_t;
  using Wake = std::function<void()>;

  std::uint64_t size() const;
  bool finished() const;
  std::optional<Error> error() const;  // why the job failed; reads past the text then give it

  // Bytes from offset, fewer than out.size() only at the present end; 0 with finished() is the end.
  // After a failure: the job's error.
  Result<std::size_t> read(std::uint64_t offset, MutableByteSpan out) const;

  // Of the tokens told of so far, from the given one on, where the job asked for them. They never
  // come before the text they belong to; those that print nothing may come with later text.
  std::vector<model::Logprobs> logprobs(std::size_t from) const;

  // Registers wake unless there is something to read at offset or the reply is finished, in which
  // case nothing is registered and nullopt says "read again now".
  std::optional<Ticket> wait(std::uint64_t offset, Wake wake);
  // True when the callback will not be called any more; false when it was, or is being.
  bool drop(Ticket ticket);

  // The scheduler's side.
  void append(std::string_view text, std::vector<model::Logprobs> logprobs = {});
  void finish(std::optional<Error> error = std::nullopt);

 private:
  mutable std::mutex mutex_;  // guards everything below
  std::string text_;
  std::vector<model::Logprobs> logprobs_;
  bool finished_ = false;
  std::optional<Error> error_;
  std::unordered_map<Ticket, Wake> waiting_;
  Ticket next_ticket_ = 1;
};

}  // namespace kvfs::sched
