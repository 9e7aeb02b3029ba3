#include "fs/refusals.h"

#include <utility>

#include "fs/clock.h"

namespace kvfs::fs {

void Refusals::note(StateId state, const std::string& subject, const Error& error) {
  const std::lock_guard lock(mutex_);
  auto& list = kept_[state];
  std::erase_if(list, [&](const Refusal& r) { return r.subject == subject; });
  list.insert(list.begin(), Refusal{subject, error.message(), now_ns()});
  if (list.size() > kKept) list.resize(kKept);
}

void Refusals::clear(StateId state, const std::string& subject) {
  const std::lock_guard lock(mutex_);
  const auto it = kept_.find(state);
  if (it == kept_.end()) return;
  std::erase_if(it->second, [&](const Refusal& r) { return r.subject == subject; });
  if (it->second.empty()) kept_.erase(it);
}

void Refusals::drop(StateId state) {
  const std::lock_guard lock(mutex_);
  kept_.erase(state);
}

std::vector<Refusal> Refusals::of(StateId state) const {
  const std::lock_guard lock(mutex_);
  const auto it = kept_.find(state);
  return it == kept_.end() ? std::vector<Refusal>{} : it->second;
}

}  // namespace kvfs::fs
