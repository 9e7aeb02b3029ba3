#include "fs/arrivals.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "codec/base/log.h"
#include "engine/sched/arrival.h"
#include "fs/context.h"
#include "fs/file_buffer.h"

namespace kvfs::fs {
namespace {

// Before what is staged is completed by what the state has: rsync may be sending more.
constexpr std::chrono::milliseconds kQuiet{500};
constexpr std::chrono::seconds kMoment{10};

using Clock = std::chrono::steady_clock;

std::map<std::string, std::uint64_t> staged_of(Context& context, StateId state) {
  std::map<std::string, std::uint64_t> out;
  const auto entries = context.store.staged(state);
  if (!entries) return out;
  for (const auto& entry : *entries) {
    const auto node = context.store.node(entry.file);
    if (!node || !sched::is_data_path(entry.name)) continue;
    out[entry.name] =
        entry.file.value * 0x9e3779b97f4a7c15ULL ^ static_cast<std::uint64_t>(node->modified_ns);
  }
  return out;
}

bool being_written(Context& context, StateId state) {
  const auto entries = context.store.staged(state);
  return entries && std::ranges::any_of(*entries, [&](const store::NameEntry& entry) {
           const auto buffer = context.files.find(entry.file);
           return buffer && buffer->being_written();
         });
}

}  // namespace

void Arrivals::arrived(Context& context, StateId state, Done done) {
  {
    const std::lock_guard lock(mutex_);
    Known& known = known_[state];
    ++known.news;
    known.goes_on_until = Clock::now() + kMoment;
  }
  context.arriving.post(
      [this, &context, state, done = std::move(done)] { look_now(context, state, done); });
}

void Arrivals::resume(Context& context, StateId state) {
  context.arriving.post([this, &context, state] { (void)settle(context, state); });
}

void Arrivals::look_now(Context& context, StateId state, const Done& done) {
  const auto found = sched::look(context.store, state);
  if (!found || !found->begun || being_written(context, state)) return done({});
  const auto staged = staged_of(context, state);
  const bool text_alone = staged.size() == 1 && staged.contains("text");
  if (text_alone || (found->complete && sent_anew(state, staged))) {
    return done(settle(context, state));
  }
  if (found->complete || found->fits) look_later(context, state);
  done({});
}

// All of it was sent since it was found wrong, if it was.
bool Arrivals::sent_anew(StateId state, const std::map<std::string, std::uint64_t>& staged) const {
  const std::lock_guard lock(mutex_);
  const auto it = known_.find(state);
  if (it == known_.end()) return true;
  return std::ranges::none_of(it->second.judged, [&](const auto& judged) {
    const auto now = staged.find(judged.first);
    return now != staged.end() && now->second == judged.second;
  });
}

void Arrivals::look_later(Context& context, StateId state) {
  const std::uint64_t news = [&] {
    const std::lock_guard lock(mutex_);
    return known_[state].news;
  }();
  context.arriving.post_after(kQuiet, [this, &context, state, news] {
    {
      const std::lock_guard lock(mutex_);
      if (known_[state].news != news) return;
    }
    if (!being_written(context, state)) (void)settle(context, state);
  });
}

Status Arrivals::settle(Context& context, StateId state) {
  // What the state has may merely not go with what has arrived so far: that is no judgement.
  const auto found = sched::look(context.store, state);
  const auto staged =
      found && found->complete ? staged_of(context, state) : std::map<std::string, std::uint64_t>();
  const auto settled = sched::settle(context.store, context.scheduler, context.catalog, state);
  const std::lock_guard lock(mutex_);
  Known& known = known_[state];
  if (settled || settled.error().code == ErrorCode::kAgain) {
    known.wrong.clear();
    known.judged.clear();
    return {};
  }
  known.wrong = settled.error().message();
  known.judged = staged;
  KVFS_INFO("a copy onto state {}: {}", state.value, known.wrong);
  return fail(settled.error());
}

std::string Arrivals::line(Context& context, StateId state) {
  const auto found = sched::look(context.store, state);
  std::string wrong;
  {
    const std::lock_guard lock(mutex_);
    if (const auto it = known_.find(state); it != known_.end()) wrong = it->second.wrong;
  }
  if (!found || !found->begun) return wrong.empty() ? "" : "copy error: " + wrong;
  if (!wrong.empty() && (found->complete || found->fits)) return "incomplete: " + wrong;
  return found->line();
}

bool Arrivals::goes_on(StateId state) const {
  const std::lock_guard lock(mutex_);
  const auto it = known_.find(state);
  return it != known_.end() && Clock::now() < it->second.goes_on_until;
}

void Arrivals::forked(StateId parent, StateId fork) {
  if (!goes_on(parent)) return;
  const std::lock_guard lock(mutex_);
  known_[fork].goes_on_until = Clock::now() + kMoment;
}

void Arrivals::make_kv(StateId state) {
  const std::lock_guard lock(mutex_);
  known_[state].kv = true;
}

bool Arrivals::has_kv(StateId state) const {
  const std::lock_guard lock(mutex_);
  const auto it = known_.find(state);
  return it != known_.end() && it->second.kv;
}

void Arrivals::drop(StateId state) {
  const std::lock_guard lock(mutex_);
  known_.erase(state);
}

}  // namespace kvfs::fs
