// Copies onto states, as they arrive: when a staged file is closed or renamed into place, what is
// there is looked at, and where nothing is missing the whole becomes the state.
//
// Any thread; one lock. Reading what arrived happens on a thread of its own, `arriving`. Who closes
// the last file of a copy waits for that and is told when it cannot be. What was found wrong once
// is not told again to who sends it anew, file by file: `status` says it until all fits.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <unordered_map>

#include "fs/node.h"

namespace kvfs::fs {

struct Context;

class Arrivals {
 public:
  // A staged file of the state has its contents.
  void arrived(Context& context, StateId state, Done done);
  // Staged by an earlier daemon: looked at again.
  void resume(Context& context, StateId state);
  // For `status`: "" when nothing is staged.
  std::string line(Context& context, StateId state);

  // `cp -r` makes names one after the other, and some of them only after the data has become the
  // state: whether something came a moment ago. A fork made inside such a state is one that is
  // about to be overwritten by its own copy.
  bool goes_on(StateId state) const;
  void forked(StateId parent, StateId fork);

  // `mkdir kv` in a state without data: there is nothing in it to remember it by.
  void make_kv(StateId state);
  bool has_kv(StateId state) const;
  void drop(StateId state);

 private:
  struct Known {
    std::uint64_t news = 0;  // times that something arrived
    bool kv = false;
    std::chrono::steady_clock::time_point goes_on_until;
    std::string wrong;                            // why what is all there cannot be
    std::map<std::string, std::uint64_t> judged;  // then: path → file and its time, mixed
  };
  void look_now(Context& context, StateId state, const Done& done);
  void look_later(Context& context, StateId state);
  Status settle(Context& context, StateId state);
  bool sent_anew(StateId state, const std::map<std::string, std::uint64_t>& staged) const;

  mutable std::mutex mutex_;  // guards known_
  std::unordered_map<StateId, Known> known_;
};

}  // namespace kvfs::fs
