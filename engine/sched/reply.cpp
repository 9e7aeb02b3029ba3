#include "engine/sched/reply.h"

#include <algorithm>
#include <iterator>
#include <utility>
#include <vector>

namespace kvfs::sched {

std::uint64_t Reply::size() const {
  const std::lock_guard lock(mutex_);
  return text_.size();
}

bool Reply::finished() const {
  const std::lock_guard lock(mutex_);
  return finished_;
}

std::optional<Error> Reply::error() const {
  const std::lock_guard lock(mutex_);
  return error_;
}

Result<std::size_t> Reply::read(std::uint64_t offset, MutableByteSpan out) const {
  const std::lock_guard lock(mutex_);
  if (offset >= text_.size()) {
    if (error_) return fail(*error_);
    return std::size_t{0};
  }
  const std::size_t n = std::min(out.size(), text_.size() - static_cast<std::size_t>(offset));
  std::copy_n(text_.begin() + static_cast<std::ptrdiff_t>(offset), n, out.begin());
  return n;
}

std::optional<Reply::Ticket> Reply::wait(std::uint64_t offset, Wake wake) {
  const std::lock_guard lock(mutex_);
  if (finished_ || offset < text_.size()) return std::nullopt;
  const Ticket ticket = next_ticket_++;
  waiting_.emplace(ticket, std::move(wake));
  return ticket;
}

bool Reply::drop(Ticket ticket) {
  const std::lock_guard lock(mutex_);
  return waiting_.erase(ticket) > 0;
}

std::vector<model::Logprobs> Reply::logprobs(std::size_t from) const {
  const std::lock_guard lock(mutex_);
  from = std::min(from, logprobs_.size());
  return {logprobs_.begin() + static_cast<std::ptrdiff_t>(from), logprobs_.end()};
}

void Reply::append(std::string_view text, std::vector<model::Logprobs> logprobs) {
  if (text.empty() && logprobs.empty()) return;
  std::unordered_map<Ticket, Wake> woken;
  {
    const std::lock_guard lock(mutex_);
    if (finished_) return;
    std::ranges::move(logprobs, std::back_inserter(logprobs_));
    if (text.empty()) return;  // nobody waits for these alone
    text_ += text;
    woken.swap(waiting_);
  }
  for (auto& [ticket, wake] : woken) wake();
}

void Reply::finish(std::optional<Error> error) {
  std::unordered_map<Ticket, Wake> woken;
  {
    const std::lock_guard lock(mutex_);
    if (finished_) return;
    finished_ = true;
    error_ = std::move(error);
    woken.swap(waiting_);
  }
  for (auto& [ticket, wake] : woken) wake();
}

}  // namespace kvfs::sched
