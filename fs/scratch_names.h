// Names that programs use on the way to the real one. Pure.
#pragma once

#include <string_view>

namespace kvfs::fs {

// `.*`, `*~`, `*.tmp`, `.nfs*`, and vim's test of whether it may write here: never a job.
inline bool is_scratch_name(std::string_view name) {
  return name.starts_with('.') || name.ends_with('~') || name.ends_with(".tmp") || name == "4913";
}

}  // namespace kvfs::fs
