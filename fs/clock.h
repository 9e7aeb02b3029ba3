// The time, as the store keeps it.
#pragma once

#include <chrono>
#include <cstdint>

namespace kvfs::fs {

inline std::int64_t now_ns() {  // since the epoch
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace kvfs::fs
