// What was refused where no job stands for it (a value in params/, a line in ctl): kept in words
// for the state's `status`, since an errno says too little. Gone when the same thing succeeds.
//
// Any thread; one lock. In memory only.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "codec/base/ids.h"
#include "codec/base/result.h"

namespace kvfs::fs {

struct Refusal {
  std::string subject;  // "params/temperature", "ctl"
  std::string message;
  std::int64_t at_ns = 0;
};

class Refusals {
 public:
  static constexpr std::size_t kKept = 8;  // a state

  void note(StateId state, const std::string& subject, const Error& error);
  void clear(StateId state, const std::string& subject);
  void drop(StateId state);
  std::vector<Refusal> of(StateId state) const;  // newest first

 private:
  mutable std::mutex mutex_;  // guards kept_
  std::unordered_map<StateId, std::vector<Refusal>> kept_;
};

}  // namespace kvfs::fs
