// Names that were unlinked but belong to the daemon: they are gone for a moment, long enough for
// `rm -r` to get to its rmdir, and then there again. Nothing behind them is touched.
//
// Any thread; one lock.
#pragma once

#include <chrono>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

#include "fs/inode.h"

namespace kvfs::fs {

class HiddenNames {
 public:
  static constexpr std::chrono::milliseconds kMoment{2000};

  void hide(Ino directory, std::string_view name);
  void show(Ino directory, std::string_view name);
  bool hidden(Ino directory, std::string_view name) const;
  bool any(Ino directory) const;

 private:
  using Clock = std::chrono::steady_clock;
  mutable std::mutex mutex_;  // guards until_
  std::map<std::pair<Ino, std::string>, Clock::time_point> until_;
  std::size_t sweep_at_ = 1024;  // entries; expired ones are dropped when the map has grown to it
};

}  // namespace kvfs::fs
